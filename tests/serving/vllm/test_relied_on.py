"""Names of vLLM that are missing, and overrides that it does not call, are errors for the models that need them."""

# pyright: reportMissingImports=false

import ast
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.served.engine import needs_vllm

from tokenprune.errors import PruningError, UnsupportedError
from tokenprune.evals.dev.vllm_names.__main__ import PLUGIN
from tokenprune.evals.dev.vllm_names.uses import File
from tokenprune.serving.vllm import models
from tokenprune.serving.vllm.relied_on import MODEL, PROCESSOR, check_overridden, listed, purpose_of

OVERRIDES = listed()["overrides"]


def test_every_name_is_listed() -> None:
    used: set[str] = set()
    for file in (File(path) for path in PLUGIN.rglob("*.py")):
        nodes = [node for node in ast.walk(file.tree) if isinstance(node, ast.Attribute)]
        for alias, use in file.imported.items():
            inside = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == alias}
            of_module = use.name.islower() and not use.module.endswith(".utils")
            used |= {f"{use.module}.{use.name}{f'.{one}' if of_module else ''}" for one in (inside or {""})}
    used = {name.rstrip(".") for name in used}
    assert {name for name in used if purpose_of(name) is None} == set()
    purposes = listed()["names"].values()
    assert set(purposes) == {purpose_of(name) for name in used}


def test_every_override_is_listed() -> None:
    pytest.importorskip("vllm")
    from tokenprune.serving.vllm.models.llava import LlavaProcessor, PrunedLlava

    for cls, name in ((LlavaProcessor, PROCESSOR), (PrunedLlava, MODEL)):
        (ours,) = (one for one in cls.__mro__ if one.__name__ == name)
        theirs = [one for one in cls.__mro__ if one.__module__.startswith("vllm.")]
        overriding = {own for own in vars(ours) if any(own in vars(one) for one in theirs) and not own.startswith("__")}
        assert OVERRIDES[name].keys() == {own for own in overriding if callable(getattr(ours, own))}


@needs_vllm
@pytest.mark.parametrize(
    ("missing", "lacking", "said"),
    [
        ("vllm.model_executor.models.keye.KeyeProcessingInfo", "Keye", "(what this model's processor knows of its"),
        ("vllm.multimodal.inputs.MultiModalKwargsItem", "Qwen2VL", "(the fields of an image)"),
        ("vllm.models.qwen4_exp", "Qwen4Exp", ""),
    ],
)
def test_a_name_that_is_missing(missing: str, lacking: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the models that need it cannot be served."""
    home, _, name = missing.rpartition(".")
    for module in [one for one in sys.modules if one.startswith(f"{models.__name__}.")]:
        monkeypatch.delitem(sys.modules, module)  # each is imported anew
    for own in [own for own, one in vars(models).items() if isinstance(one, ModuleType) and own != "__builtins__"]:
        monkeypatch.delattr(models, own)
    if name[0].isupper():
        monkeypatch.delattr(import_module(home), name)
    else:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UnsupportedError) as caught:
        getattr(models, f"TokenPrune{lacking}")
    assert str(caught.value).startswith(f"this vLLM has no {missing}")
    assert said in str(caught.value)
    assert f"which TokenPrune{lacking} needs. Install vLLM 0.32, 0.33 or 0.34, or serve" in str(caught.value)
    assert models.TokenPruneAria.__name__ == "PrunedAria"  # pyright: ignore[reportAttributeAccessIssue]


def test_an_error_of_our_own_is_not_vllms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"{models.__name__}.llava", ModuleType("empty"))
    monkeypatch.delattr(models, "llava", raising=False)
    with pytest.raises(AttributeError, match="'empty' has no attribute 'PrunedLlava'"):
        _ = models.TokenPruneLlava  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(("ours", "name"), [(ours, name) for ours, names in OVERRIDES.items() for name in names])
def test_a_method_that_vllm_does_not_have(ours: str, name: str) -> None:
    methods = dict.fromkeys(OVERRIDES[ours])
    whole, lacking = (type("Theirs", (), {**have, "__module__": "vllm.models"}) for have in (methods, dict(methods)))
    delattr(lacking, name)
    check_overridden(type("Ours", (whole,), {}), ours)
    check_overridden(type("Mixin", (), {}), ours)
    with pytest.raises(UnsupportedError, match=f"has no method {name}, which is to .*, and Ours needs it. Install"):
        check_overridden(type("Ours", (lacking,), {}), ours)


@needs_vllm
@pytest.mark.parametrize("name", [None, *(one for one in OVERRIDES[PROCESSOR] if one != "get_dummy_inputs")])
def test_a_processor_whose_override_is_not_called(
    name: str | None, llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.multimodal.processing import BaseMultiModalProcessor

    from tokenprune.serving.vllm.plugin import register
    from tokenprune.serving.vllm.processor.processor import PruningProcessor

    register()
    settings = {"architectures": ["TokenPruneLlava"], "tokenprune": {"strategy": "divprune"}}
    config = ModelConfig(str(llava), hf_overrides=settings, dtype="float32", max_model_len=64)
    processor: Any = MULTIMODAL_REGISTRY.create_processor(config)
    if name is None:
        processor.get_dummy_mm_inputs({"image": 1})
        return
    theirs = type(processor) if name == "_get_mm_fields_config" else BaseMultiModalProcessor
    own = getattr(theirs, name) if theirs is BaseMultiModalProcessor else theirs.__mro__[2]._get_mm_fields_config
    monkeypatch.setattr(PruningProcessor, name, own)
    with pytest.raises(PruningError, match=f"vLLM did not call {name}, which is to .* Install vLLM 0.32, 0.33"):
        processor.get_dummy_mm_inputs({"image": 1})


class Theirs:
    """Returns what it gets."""

    def embed_multimodal(self, **kwargs: Any) -> Any:
        return kwargs["features"]

    def embed_input_ids(self, input_ids: Any, rows: Any, *, is_multimodal: Any) -> Any:
        return torch.cat(rows)

    def forward(self, input_ids: Any, positions: Any, *others: Any) -> Any:
        return positions


def model() -> Any:
    from tokenprune.serving.vllm.worker.model import PrunedModel
    from tokenprune.serving.vllm.worker.positions import StepPositions

    cls: Any = type("Model", (PrunedModel, Theirs), {"capture": None, "unprojected": None})
    made = cls.__new__(cls)
    made.step = StepPositions(1, 20, width=8, adds=True)
    made.settings, made.selector = SimpleNamespace(position_ids="original"), SimpleNamespace(file=None)
    return made


IDS, IS_VISUAL = torch.arange(5).expand(3, 5), torch.tensor([False, True, True, False, False])


@needs_vllm
@pytest.mark.parametrize("left_out", [None, "forward", "get_mrope_input_positions"])
def test_features_without_position_ids(left_out: str | None) -> None:
    """If they are not added, which only the next step can tell, no second token is made."""
    made, rows = model(), torch.zeros(2, 10)
    if left_out != "get_mrope_input_positions":
        made.step.reached.note("get_mrope_input_positions")
    with pytest.raises(PruningError, match=f"vLLM did not call {left_out}, which") if left_out else nullcontext():
        assert made.embed_input_ids(IDS[0], [rows], is_multimodal=IS_VISUAL).shape == (2, 8)
        if left_out != "forward":
            assert made.forward(None, IDS).tolist() == IDS[0].tolist()
        made.embed_input_ids(IDS[0], [rows], is_multimodal=IS_VISUAL)


@needs_vllm
def test_features_that_were_not_selected() -> None:
    """They come as vLLM's own model makes them; embeddings of text look like them."""
    made, rows = model(), [torch.zeros(2, 8)]
    made.embed_input_ids(IDS[0], rows, is_multimodal=IS_VISUAL)
    made.step.reached.note("get_mrope_input_positions")
    with pytest.raises(PruningError, match="vLLM did not call embed_multimodal, which is to encode"):
        made.embed_input_ids(IDS[0], rows, is_multimodal=IS_VISUAL)


@needs_vllm
@pytest.mark.usefixtures("unchecked")
def test_steps_without_embeddings_or_position_ids() -> None:
    for positions in ((), (None,), (IDS[0],)):
        with pytest.raises(PruningError, match="vLLM did not call forward, which is to get the position IDs"):
            model().forward(None, *positions)
    made = model()
    made.forward(None, IDS)
    made.step.reached.note("get_mrope_input_positions")
    with pytest.raises(PruningError, match="vLLM did not call embed_input_ids, which is to embed"):
        made.forward(None, IDS)
