"""What `import tokenprune` and the command's help load, and how long that takes."""

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tokenprune
from tokenprune import strategies

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = "from tokenprune import *"
NAMES = import_module("tokenprune").__all__
HELP = "from tokenprune.__main__ import main; main(['--help'])"
#: Also in a process that has loaded torch, importing changes neither its seed nor what is logged.
UNCHANGED = """
import sys, logging, torch
level, handlers = logging.root.level, list(logging.root.handlers)
seed = torch.initial_seed()
import tokenprune
heavy = {"transformers", "matplotlib", "PIL", "tokenprune.evals"} & set(sys.modules)
assert not heavy, heavy
assert not torch.cuda.is_initialized() and torch.initial_seed() == seed
assert (logging.root.level, list(logging.root.handlers)) == (level, handlers)
"""
PATCH = """
import pathlib, sys, tokenprune
from transformers import LlavaConfig, LlavaForConditionalGeneration
from tokenprune.adapters import ADAPTERS, ModelAdapter, register_adapter
def imported():
    return {name.rpartition(".")[2] for name in sys.modules if name.startswith("tokenprune.adapters.families.")}
small = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
vision, text = {**small, "model_type": "clip_vision_model", "image_size": 28}, {**small, "model_type": "llama"}
config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=5)
tokenprune.patch(LlavaForConditionalGeneration(config), "grid", keep=1)
assert imported() == {"llava"}, imported()
adapter = register_adapter("InternVLForConditionalGeneration")(type("Other", (ModelAdapter,), {}))
names = {*ADAPTERS}
for file in sorted(pathlib.Path('adapters/families').glob("*.py")):
    __import__(f"tokenprune.adapters.families.{file.stem}")
assert ADAPTERS["InternVLForConditionalGeneration"] is adapter
assert {*ADAPTERS} == names and all(ADAPTERS.values())
"""


def test_a_type_checker_sees_misspelt_names() -> None:
    """Unless a module defines `__getattr__`, with which every name exists."""
    tree = ast.parse((ROOT / "tokenprune" / "__init__.py").read_text(encoding="utf-8"))
    assert "__getattr__" not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert hasattr(tokenprune, "__getattr__")


def in_a_new_process(code: str) -> str:
    """Run the code in a new process and return its output. Python may write byte code, or every process would
    compile."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def cpu_seconds(code: str) -> float:
    """Return the CPU time of one new process that runs `code`."""
    before = os.times()
    in_a_new_process(code)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def loaded(code: str) -> set[str]:
    """Return the modules that a process has loaded after running `code`."""
    listing = "import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint('loaded', *sys.modules)"
    return set(in_a_new_process(listing.format(code=code)).splitlines()[-1].split()[1:])


def test_every_public_name_has_one_home() -> None:
    """The imports that type checkers read agree with the table that is used at run time."""
    tree = ast.parse((ROOT / "tokenprune" / "__init__.py").read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    imported = {
        alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported.pop("*") == "tokenprune.strategies"
    imported |= dict.fromkeys(strategies.__all__, "tokenprune.strategies")
    tools = {name: module for name, (module, _) in tokenprune._TOOLS.items()}
    assert imported == {**tokenprune._MODULES, **dict.fromkeys(strategies.__all__, "tokenprune.strategies"), **tools}
    assert sorted([*NAMES, *tools]) == sorted(imported)
    assert {cls.__name__ for cls in strategies.STRATEGIES.values()} <= set(NAMES)
    for name, module in imported.items():
        assert getattr(tokenprune, name) is getattr(import_module(str(module)), name)


def test_no_public_name_is_a_modules() -> None:
    """Importing a module sets an attribute of its package, which would hide a public name."""
    modules = {path.stem for path in (ROOT / "tokenprune").iterdir()}
    assert not modules & set(NAMES)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="module 'tokenprune' has no attribute 'Fopru'") as raised:
        tokenprune.Fopru  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    # Python suggests: Did you mean: 'FoPru'?
    assert (raised.value.name, raised.value.obj) == ("Fopru", tokenprune)
    assert set(NAMES) <= set(dir(tokenprune))


def test_the_public_names_load_little() -> None:
    """Compilers, symbolic algebra and plots are loaded only where they are used."""
    added = loaded(f"import torch; {PUBLIC}") - loaded("import torch")
    heavy = {"transformers", "torch._dynamo", "torch._inductor", "torch.onnx", "sympy", "jinja2", "scipy", "matplotlib"}
    assert not heavy & added
    assert not {name for name in added if name.startswith("tokenprune.evals")}
    assert len({name for name in added if not name.startswith("tokenprune")}) < 60


def test_importing_the_package_alone_does_not_load_torch() -> None:
    assert not {"torch", "numpy", "tokenprune.patching"} & loaded("import tokenprune")


def test_importing_the_package_changes_nothing() -> None:
    in_a_new_process(UNCHANGED)


def test_help_loads_no_torch() -> None:
    assert not {"torch", "numpy", "transformers", "rich"} & loaded(HELP)


def test_patch_imports_one_family() -> None:
    """The others' classes are known nevertheless, and an adapter registered before its family is imported stays."""
    in_a_new_process(PATCH)


@pytest.mark.slow
def test_start_up_is_quick() -> None:
    """Measured: 1.15 times torch alone, and 0.1 s. With other load, single CPU times vary by half, so each is compared
    with torch's right after it, and one of five comparisons must hold."""
    in_a_new_process(PUBLIC)  # writes the byte code
    assert any(cpu_seconds(f"import torch; {PUBLIC}") < 1.4 * cpu_seconds("import torch") for _ in range(5))
    assert cpu_seconds(HELP) < 1.5
