"""Who may import whom, and that importing changes nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# __main__.py is the command: it starts what is in the evals.
LIBRARY = sorted(path for path in (ROOT / "tokenprune").glob("*.py") if path.name != "__main__.py")
STRATEGIES = sorted((ROOT / "tokenprune" / "strategies").glob("*.py"))
ADAPTERS = sorted((ROOT / "adapters").glob("*.py"))

#: Attributes of Hugging Face modules and configs; only adapters may know them.
HF_NAMES = {
    "vision_tower", "multi_modal_projector", "q_proj", "k_proj", "self_attn", "pixel_values", "image_token_id",
    "vision_feature_layer", "vision_config", "text_config", "mm_encoder_outputs", "past_key_values",
    "num_attention_heads", "hidden_size", "patch_size", "model_type",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def reaches(path: Path, *packages: str) -> set[str]:
    return {name for name in imported(path) if any(f"{name}.".startswith(f"{p}.") for p in packages)}


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.name)
def test_strategies_know_tensors_only(path: Path) -> None:
    assert not reaches(path, "transformers", "tokenprune.adapters", "tokenprune.engine.pruner", "tokenprune.patching")


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.name)
def test_the_library_does_not_import_transformers(path: Path) -> None:
    assert not reaches(path, "transformers")


@pytest.mark.parametrize("path", [*LIBRARY, *STRATEGIES, *ADAPTERS], ids=lambda path: path.name)
def test_nothing_imports_evals_or_demos(path: Path) -> None:
    assert not reaches(path, "tokenprune.evals", "evals", "demos", "adapters")


@pytest.mark.parametrize("path", [*LIBRARY, *STRATEGIES], ids=lambda path: path.name)
def test_only_adapters_know_hugging_face_names(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in HF_NAMES:
            found.add(node.attr)
        if isinstance(node, ast.Constant) and node.value in HF_NAMES:
            found.add(node.value)
    # The name of ModelAdapter's own answer.
    assert found <= ({"vision_tower"} if path.name == "hooks.py" else set())


@pytest.mark.parametrize("path", [*LIBRARY, *STRATEGIES, *ADAPTERS], ids=lambda path: path.name)
def test_only_one_module_registers_hooks(path: Path) -> None:
    """One for each call that patches: `patch`, and `patch_retrieval`."""
    registers = path.parent.name == "tokenprune" and path.name in ("hooks.py", "retrieval.py")
    assert ("register_forward" in path.read_text()) == registers


def in_a_new_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_importing_tokenprune_loads_no_transformers() -> None:
    code = """
import sys, logging, torch
level, handlers = logging.root.level, list(logging.root.handlers)
seed = torch.initial_seed()
import tokenprune
heavy = {"transformers", "matplotlib", "PIL", "tokenprune.evals"} & set(sys.modules)
assert not heavy, heavy
assert not torch.cuda.is_initialized() and torch.initial_seed() == seed
assert (logging.root.level, list(logging.root.handlers)) == (level, handlers)
"""
    result = in_a_new_process(code)
    assert result.returncode == 0, result.stderr


def test_adapters_has_one_name_only() -> None:
    result = in_a_new_process("import adapters")
    assert "import tokenprune.adapters, not adapters" in result.stderr


def test_every_name_in_all_exists() -> None:
    import tokenprune

    assert all(hasattr(tokenprune, name) for name in tokenprune.__all__)
