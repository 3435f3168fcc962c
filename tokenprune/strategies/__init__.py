"""All strategies, one file each in a folder for where they prune, and the registry of their names.

README.md is the guide to writing one; CONTRIBUTING.md lists the edits that add it here.

pre_tower  before the vision tower
in_tower   in the vision tower
pre_llm    before the language model
in_llm     inside the language model
video      before the language model, by comparing the frames of a video
baselines  selections that do not depend on what the image shows
compose    several strategies in sequence
registry   names, classes and settings
parsing    strategies as text: `fopru:mode=row`
settings   strategies in files
shared     helpers, shared or large
"""

from importlib import import_module
from pkgutil import walk_packages

from tokenprune.strategies.parsing import parse as parse
from tokenprune.strategies.registry import STRATEGIES as STRATEGIES
from tokenprune.strategies.registry import make as make
from tokenprune.strategies.registry import register_strategy as register_strategy
from tokenprune.strategy import Strategy

# Every strategy that a module of this package defines is a public name. Type checkers read __init__.pyi.
_CLASSES = {
    cls.__name__: cls
    for module in walk_packages(__path__, f"{__name__}.")
    for cls in vars(import_module(module.name)).values()
    if isinstance(cls, type) and issubclass(cls, Strategy) and cls.__module__ == module.name
}
_NAMES = sorted(["STRATEGIES", "register_strategy", *_CLASSES], key=lambda name: (not name.isupper(), name))
globals().update(_CLASSES, __all__=_NAMES)
