"""Whatever transformers renames, the answer is right or an error is raised.

Names are changed in our files instead of in transformers, which is equivalent.
"""

import ast
import importlib.util
import multiprocessing
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.tiny import CACHE, prompt, tiny_llava

import tokenprune

PACKAGE = Path(tokenprune.__file__).parent
RENAMED_IN = ("tokenprune.adapters", "tokenprune.engine", "tokenprune.encoded")
N_KEPT, STEPS = 9, 4

#: The names of transformers that adapters and engine use in calls of a LLaVA.
NAMES = [
    "vision_tower", "language_model", "layers", "image_token_id", "vision_config", "text_config", "get_text_config",
    "vision_feature_layer", "vision_feature_select_strategy", "mm_encoder_outputs", "get_image_features",
    "pixel_values", "input_ids", "inputs_embeds", "attention_mask", "position_ids", "use_cache", "cache",
    "past_key_values", "get_seq_length", "get_mask_sizes", "update", "crop", "self_attn", "q_proj", "k_proj",
    "encoder", "vision_model", "num_attention_heads", "hidden_size", "patch_size", "model_type", "layer_types",
    "sliding_window", "_attn_implementation", "_loss_function", "loss_function", "logits_to_keep", "image_sizes",
]  # fmt: skip
#: Names whose renaming changes nothing here: LLaVA with CLIP does not use them, or both names are accepted.
HARMLESS = {"image_sizes", "cache", "past_key_values"}
#: Variables that hold our own objects, whose attributes keep their names.
OURS = {"self", "forward", "incoming", "pruned", "new", "entry", "run", "image"}


class Renamer(ast.NodeTransformer):
    """Renames attributes, strings and keywords."""

    def __init__(self, old: str) -> None:
        self.old, self.new = old, f"{old}_renamed"

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        # Only on objects that may belong to transformers.
        ours = isinstance(node.value, ast.Name) and node.value.id in OURS
        node.attr = self.new if node.attr == self.old and not ours else node.attr
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.copy_location(ast.Constant(self.new), node) if node.value == self.old else node


class RenamingLoader(Loader):
    def __init__(self, path: Path, old: str) -> None:
        self.path, self.old = path, old

    def exec_module(self, module: ModuleType) -> None:
        tree = ast.fix_missing_locations(Renamer(self.old).visit(ast.parse(self.path.read_text())))
        exec(compile(tree, str(self.path), "exec"), vars(module))


class RenamingFinder(MetaPathFinder):
    def __init__(self, old: str) -> None:
        self.old = old

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if not fullname.startswith(RENAMED_IN):
            return None
        base = PACKAGE.joinpath(*fullname.split(".")[1:])
        package = (base / "__init__.py").exists()
        file = base / "__init__.py" if package else base.with_suffix(".py")
        locations = [str(base)] if package else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=RenamingLoader(file, self.old), submodule_search_locations=locations
        )


def answers(model: Any) -> dict[str, list[int]]:
    """Return the greedy tokens of `generate`, and of a decode loop as users write it."""
    inputs = prompt([1])
    with torch.no_grad():
        generated = model.generate(**inputs, max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False)
        out = model(**inputs, use_cache=True)
        loop = [int(out.logits[0, -1].argmax())]
        for _ in range(STEPS - 1):
            out = model(input_ids=torch.tensor([loop[-1:]]), **{CACHE: out[CACHE]}, use_cache=True)
            loop.append(int(out.logits[0, -1].argmax()))
    return {"generate": generated[0].tolist(), "loop": loop}


def run_renamed(name: str | None, connection: Connection) -> None:
    """In a separate process, send the answers of a patched model after renaming `name`."""
    torch.set_num_threads(1)  # a forked process lacks the threads of its parent's pool
    for module in [module for module in sys.modules if module.startswith("tokenprune")]:
        del sys.modules[module]
    # Annotations are not checked, because the tests' own checks would fail on a new name.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("jaxtyping")]
    if name is not None:
        sys.meta_path.insert(0, RenamingFinder(name))
    try:
        import tokenprune

        model = tiny_llava()
        handle = tokenprune.patch(model, tokenprune.FoPru(keep=N_KEPT))
        found = answers(model)
        connection.send((found, handle.report.n_kept))
    except Exception as error:  # noqa: BLE001 - whatever is raised is loud
        connection.send(f"{type(error).__name__}: {error}")


def outcome_of(name: str | None) -> Any:
    context = multiprocessing.get_context("fork")  # torch and transformers are imported already
    ours, theirs = context.Pipe()
    process = context.Process(target=run_renamed, args=(name, theirs))
    process.start()
    answered = ours.poll(60)
    result = ours.recv() if answered else None
    process.kill()
    process.join()
    assert answered, f"no answer with {name} renamed"
    return result


@pytest.fixture(scope="module")
def right() -> Any:
    result = outcome_of(None)
    assert not isinstance(result, str), result
    assert result[1] == N_KEPT
    return result


@pytest.mark.parametrize("name", NAMES)
def test_a_renamed_name_is_right_or_raises(name: str, right: Any) -> None:
    result = outcome_of(name)
    assert result == right or isinstance(result, str), f"{name} was renamed, and the model answers {result}"
    if name in HARMLESS:
        assert result == right


def test_most_names_are_needed(right: Any) -> None:
    """Otherwise, renaming itself would not work."""
    assert isinstance(outcome_of("get_image_features"), str)
    assert isinstance(outcome_of("vision_tower"), str)
