"""Who may import whom and use which Hugging Face names."""

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python_files(*folders: str) -> list[str]:
    """Return all Python files below the folders, relative to the root, without following the symlinks in
    tokenprune/."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    files = sorted(str(path.relative_to(ROOT)) for path in found)
    return [file for file in files if not file.startswith(("tokenprune/adapters/", "tokenprune/evals/"))]


# __main__.py is the command: it starts what is in the evals.
LIBRARY = [file for file in python_files("tokenprune") if file != "tokenprune/__main__.py"]
#: The vLLM plug-in, which may use the names of vLLM and its model families, like the adapters those of transformers.
VLLM = "tokenprune/serving/vllm/"
ADAPTERS = python_files("adapters")
EVALS = python_files("evals")
DEV = [file for file in EVALS if file.startswith("evals/dev/")]

#: Names of Hugging Face modules and settings: only in adapters.
MODULE_NAMES = {
    "vision_tower", "multi_modal_projector", "q_proj", "k_proj", "v_proj", "self_attn", "image_token_id",
    "video_token_id", "vision_feature_layer", "vision_config", "text_config", "get_text_config", "mm_encoder_outputs",
    "get_image_features", "get_video_features", "num_attention_heads", "hidden_size", "patch_size", "model_type",
    "_attn_implementation", "gradient_checkpointing", "sliding_window", "layer_types", "image_grid_thw",
}  # fmt: skip
#: Arguments of a language model's call: only in adapters and the engine.
CALL_NAMES = {"inputs_embeds", "attention_mask", "position_embeddings", "past_key_values", "cache_position"}
#: transformers' cache protocol: only in adapters and the engine.
CACHE_NAMES = {
    "get_seq_length", "get_mask_sizes", "reorder_cache", "batch_repeat_interleave", "batch_select_indices",
    "offloading",
}  # fmt: skip
#: The only users of the engine: packages that change or read a model, measurements of layers and caches, and an ideal.
PATCHING = (
    "tokenprune/patching/",
    "tokenprune/zoom/",
    "tokenprune/retrieval/",
    VLLM,
    "evals/bench/timing/stopwatch.py",
    "evals/bench/ideal_rows.py",
)
#: Outside of the engine, only the reader for probes uses a language model's calls.
KNOW_CALLS = ("tokenprune/engine/", "tokenprune/patching/decoder_attention.py", "tokenprune/patching/untested.py", VLLM)
#: Files outside of the engine that register hooks, and why. Inside, all hooks go through `register` in engine/patch.py.
HOOKS = {
    "tokenprune/patching/decoder_attention.py",
    "tokenprune/patching/probing.py",
    "tokenprune/patching/untested.py",  # for one forward
    "tokenprune/retrieval/patching.py",  # also through `register` in engine/patch.py
    "tokenprune/serving/vllm/worker/capture.py",  # on vLLM's own model, which nobody else holds
}


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


@cache
def imported(file: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def reaches(file: str, *packages: str) -> set[str]:
    return {name for name in imported(file) if any(f"{name}.".startswith(f"{package}.") for package in packages)}


def answers_of_an_adapter(node: ast.Attribute) -> bool:
    """Return whether the attribute belongs to a ModelAdapter, some of whose attributes have Hugging Face's names."""
    owner = node.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return name.endswith("adapter")


def names_in(file: str) -> Iterator[str]:
    """Yield every attribute in a file, except an adapter's, and every string."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Attribute) and not answers_of_an_adapter(node):
            yield node.attr
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def found_in(files: Iterable[str], find: Callable[[str], Iterable[str]]) -> dict[str, set[str]]:
    """Return what `find` finds in each file, leaving out files without findings. Fails if there are no files."""
    found = {file: set(find(file)) for file in files}
    assert found
    return {file: names for file, names in found.items() if names}


def imports_in(files: Iterable[str], *packages: str) -> dict[str, set[str]]:
    return found_in(files, lambda file: reaches(file, *packages))


def test_strategies_know_tensors_only() -> None:
    strategies = [file for file in LIBRARY if "/strategies/" in file]
    assert not imports_in(strategies, "transformers", "tokenprune.adapters", "tokenprune.engine", "tokenprune.patching")


def test_the_library_does_not_import_transformers() -> None:
    assert not imports_in([file for file in LIBRARY if not file.startswith(VLLM)], "transformers")


def test_nothing_imports_evals_or_demos() -> None:
    """The package offers tools of the evals, which type checkers see, but loads them only on first use."""
    tools = {"tokenprune.evals.adapt.adapt.adapt", "tokenprune.evals.tune.tune.tune"}
    found = imports_in([*LIBRARY, *ADAPTERS], "tokenprune.evals", "evals", "demos", "adapters")
    assert found == {"tokenprune/__init__.py": tools}


def test_the_packaged_evals_do_not_import_what_is_not_packaged() -> None:
    assert not imports_in([file for file in EVALS if file not in DEV], "tokenprune.evals.dev", "demos", "tests")


def test_only_the_start_of_a_run_knows_engines() -> None:
    """Engines answer the questions of a run, but only the start of a run may know about engines."""
    beginning, engines = "evals/run/evaluate.py", "evals/run/engines/"
    run = [file for file in EVALS if file.startswith("evals/run/") and not file.startswith((beginning, engines))]
    assert not imports_in(run, "tokenprune.evals.run.engines")
    assert not imports_in([file for file in EVALS if file.startswith(engines)], "tokenprune.evals.run.evaluate")


def test_evaluations_do_not_import_what_is_made_of_them() -> None:
    run = [file for file in EVALS if file.startswith("evals/run/")]
    assert not imports_in(run, *(f"tokenprune.evals.{name}" for name in ("cli", "report", "search", "tune", "adapt")))


def module_of(file: str) -> str:
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.startswith("tokenprune") else f"tokenprune.{name}"


def siblings(name: str, other: str) -> tuple[str, str] | None:
    """Return the packages or modules beside each other that two modules are in; None if one holds the other."""
    parts, others = name.split("."), other.split(".")
    same = next((n for n, (one, two) in enumerate(zip(parts, others, strict=False)) if one != two), None)
    return None if same is None else (".".join(parts[: same + 1]), ".".join(others[: same + 1]))


def circular(graph: dict[str, set[str]]) -> set[str]:
    """Return the nodes that are in circles of a graph, or lead to one. Fails if the graph has no edges."""
    assert any(graph.values())
    while free := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in free}
    return {*graph}


def test_packages_do_not_import_each_other() -> None:
    """Folders beside each other, at every level; also what they import inside functions or for type checkers."""
    files = [*LIBRARY, *ADAPTERS, *EVALS]
    packages = {module_of(file) for file in files if file.endswith("/__init__.py")}
    pairs = {siblings(module_of(file), name) for file in files for name in reaches(file, "tokenprune")}
    graph: dict[str, set[str]] = {package: set() for package in packages}
    for pair in pairs - {None}:
        if pair is not None and packages.issuperset(pair):
            graph[pair[0]].add(pair[1])
    assert not circular(graph), "these packages import each other, or packages that do: move what they share"


def test_files_do_not_import_each_other() -> None:
    """Also inside functions or for type checkers: a file can be read once those that it imports are. The root is left
    out, because it loads the names that it offers on first use."""
    modules = {module_of(file): file for file in [*LIBRARY, *ADAPTERS, *EVALS] if file != "tokenprune/__init__.py"}
    graph: dict[str, set[str]] = {}
    for module, file in modules.items():
        names = reaches(file, "tokenprune")
        graph[module] = {name if name in modules else name.rpartition(".")[0] for name in names} - {module}
    assert not circular(graph), "these files import each other, or files that do: move what they share"


def test_only_what_patches_imports_the_engine() -> None:
    others = [file for file in [*LIBRARY, *ADAPTERS, *EVALS] if file not in DEV]
    others = [file for file in others if not file.startswith(("tokenprune/engine/", *PATCHING))]
    assert not imports_in(others, "tokenprune.engine")


def test_adapters_import_the_shared_vocabulary_only() -> None:
    vocabulary = [
        f"tokenprune.{name}" for name in ("adapters", "encoded", "entry_points", "errors", "sequence", "tokens")
    ]
    assert not found_in(ADAPTERS, lambda file: reaches(file, "tokenprune") - reaches(file, *vocabulary))


def test_only_the_plug_in_imports_vllm() -> None:
    others = [file for file in [*LIBRARY, *ADAPTERS, *EVALS] if not file.startswith(VLLM)]
    assert not imports_in(others, "vllm", "tokenprune.serving.vllm.worker")


def test_only_adapters_know_names_of_modules_and_settings() -> None:
    others = [file for file in LIBRARY if not file.startswith(VLLM)]
    assert not found_in(others, lambda file: MODULE_NAMES & set(names_in(file)))


def test_only_adapters_and_engine_know_calls_and_caches() -> None:
    others = [file for file in LIBRARY if not file.startswith(KNOW_CALLS)]
    assert not found_in(others, lambda file: (CALL_NAMES | CACHE_NAMES) & set(names_in(file)))


def registrations(node: ast.AST) -> list[ast.Call]:
    """Return the calls below a node that register a hook on a module."""
    calls = [child for child in ast.walk(node) if isinstance(child, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr.startswith("register_fo")]


def unowned(file: str) -> list[str]:
    """Return the hooks in a file of the engine that only the caller can remove."""
    calls = [node for node in ast.walk(tree(file)) if isinstance(node, ast.Call)]
    handed_over = [call.args for call in calls if isinstance(call.func, ast.Name) and call.func.id == "register"]
    return [ast.unparse(call) for call in registrations(tree(file)) if not any(call in args for args in handed_over)]


def test_every_hook_has_an_owner() -> None:
    """In the engine, the pruner removes all hooks, so it must get every handle except those of a single call."""
    engine = [file for file in LIBRARY if file.startswith("tokenprune/engine/")]
    of_a_call = "tokenprune/engine/attention.py"
    assert len(registrations(tree(of_a_call))) == 1
    assert not found_in([file for file in engine if file != of_a_call], unowned)
    others = [file for file in [*LIBRARY, *ADAPTERS] if file not in engine]
    assert found_in(others, lambda file: map(ast.unparse, registrations(tree(file)))).keys() == HOOKS
