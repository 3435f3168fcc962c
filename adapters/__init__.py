"""Model adapters: the only files that know Hugging Face's module and config names. See README.md in this folder."""

if __name__ != "tokenprune.adapters":  # a second name would make a second copy of every class
    raise ImportError("import tokenprune.adapters, not adapters")

from tokenprune.adapters import families as families  # importing it registers every family's adapter
from tokenprune.adapters import verified as verified
from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import ADAPTERS, adapter_for, register_adapter
from tokenprune.adapters.towers import Tower, register_tower

__all__ = ["ADAPTERS", "GenericAdapter", "ModelAdapter", "Tower", "adapter_for", "register_adapter", "register_tower"]
