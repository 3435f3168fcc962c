"""Combinations of classes that no test covers are checked by numbers, once, and left as they were."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers
from helpers.contract.cells import model_of
from helpers.families.base import decoder
from helpers.families.llava import Llava
from helpers.tiny import prompt, tiny_llava
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

import tokenprune
from tokenprune import FoPru, Grid, UnsupportedError
from tokenprune.adapters import adapter_for
from tokenprune.adapters.tested import is_tested
from tokenprune.patching import untested

QWEN = transformers.Qwen3Config(**decoder(head_dim=8, num_hidden_layers=3))


def llava_on(config: Any) -> Any:
    """Return a tiny LLaVA with another language model."""
    return Llava("llava-clip", text_config=config).build()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows in every call of Qwen3 as a language model."""
    seen, forward = [], Qwen3Model.forward

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(kwargs["inputs_embeds"]))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Qwen3Model, "forward", counting)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_after_the_rotation(dtype: torch.dtype) -> None:
    model = llava_on(transformers.NanoChatConfig(**decoder(num_hidden_layers=3))).to(dtype)
    said = r"with NanoChatModel is a combination that no test covers.*text attention.*decoder layer 0.*differ by \d+"
    with pytest.raises(UnsupportedError, match=said):
        tokenprune.patch(model, "fastv", keep_ratio=0.5)
    with pytest.raises(UnsupportedError, match=said):
        tokenprune.probe(model, decoder_layers=[0])
    tokenprune.patch(model, Grid()).remove()  # reads no text attention


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_filler_that_a_state_takes_in(dtype: torch.dtype) -> None:
    model = llava_on(transformers.RecurrentGemmaConfig(**decoder(num_hidden_layers=3, attention_window_size=8))).to(
        dtype
    )
    with pytest.raises(UnsupportedError, match=r"a row beside one that keeps more.*they differ by \d.*Load a model"):
        tokenprune.patch(model, Grid())
    tokenprune.probe(model).remove()  # drops nothing


def test_experts_that_rounding_changes() -> None:
    """Half precision makes some tokens of this deep model change experts, which is not the filler's doing."""
    sizes = decoder(hidden_size=256, num_hidden_layers=32, num_attention_heads=8, head_dim=32)
    experts: Any = {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 64}
    model = llava_on(transformers.Qwen3NextConfig(**sizes, **experts, shared_expert_intermediate_size=64))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.06)
    tokenprune.patch(model.to(torch.bfloat16), Grid()).remove()


def test_a_window_in_layers_of_another_kind() -> None:
    model = llava_on(transformers.MiniMaxConfig(**decoder(head_dim=8, sliding_window=8)))
    said = r"'full_attention' layers apply the sliding_window of its config.*sliding_window = None"
    with pytest.raises(UnsupportedError, match=said):
        tokenprune.patch(model, Grid())
    model.config.get_text_config().sliding_window = None
    tokenprune.patch(model, Grid()).remove()


def test_position_ids_that_a_language_model_ignores(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Qwen3Model.forward

    def counting(self: Any, **kwargs: Any) -> Any:
        return forward(self, **{**kwargs, "position_ids": None})

    monkeypatch.setattr(Qwen3Model, "forward", counting)
    model = llava_on(QWEN)
    with pytest.raises(UnsupportedError, match=r"dropping tokens is not masking them \(they differ by"):
        tokenprune.patch(model, Grid())


def test_a_window_longer_than_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are shortened for it: this model's masks have none, whatever its config says."""
    modeling: Any = modeling_mistral
    model = llava_on(transformers.MistralConfig(**decoder(sliding_window=4096)))
    monkeypatch.setattr(modeling, "create_sliding_window_causal_mask", modeling.create_causal_mask)
    with pytest.raises(UnsupportedError, match="dropping tokens is not masking them"):
        tokenprune.patch(model, Grid())
    monkeypatch.undo()
    with tokenprune.patch(model, Grid()):
        assert model.config.get_text_config().sliding_window == 4096


def test_it_runs_once_per_model(calls: list[int]) -> None:
    model = llava_on(QWEN)
    tokenprune.patch(model, Grid()).remove()
    assert calls == [2, 1]
    tokenprune.patch(model, FoPru(keep_ratio=0.5)).remove()
    assert len(calls) == 2
    tokenprune.patch(model, "fastv", keep_ratio=0.5).remove()
    assert calls[2:] == [1]  # the text attention too
    tokenprune.probe(model, decoder_layers=[1]).remove()
    assert len(calls) == 3


@pytest.mark.parametrize("case", ["llava-clip", "qwen2.5-vl", "internvl"])
def test_tested_combinations_cost_nothing(case: str) -> None:
    """No module of the model is called before its first prompt."""
    calls: list[str] = []
    with register_module_forward_pre_hook(lambda module, args: calls.append(type(module).__name__)):
        tokenprune.patch(model_of(case), "fopru", keep_ratio=0.5).remove()
    assert calls == []


def test_what_is_tested() -> None:
    model = tiny_llava("clip")
    assert is_tested(adapter_for(model))
    assert not is_tested(adapter_for(model, tokenprune.GenericAdapter))
    assert not is_tested(adapter_for(llava_on(QWEN)))  # another language model
    other = type("LlamaModel", (type(model.model.language_model),), {"__module__": "transformers_modules.mine"})
    model.model.language_model.__class__ = other
    assert not is_tested(adapter_for(model))  # of the same name


def test_other_kinds_of_layers_are_another_combination() -> None:
    model = tiny_llava("dinov2")
    assert is_tested(adapter_for(model))
    model.config.get_text_config().sliding_window = 8
    assert not is_tested(adapter_for(model))


@pytest.mark.parametrize("tolerance", [1e-2, 0.0], ids=["passed", "refused"])
def test_it_leaves_nothing_behind(tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llava_on(QWEN).train()
    model.model.language_model.layers[1].eval()
    modules = list(model.modules())
    states = [({**vars(module)}, {**module._buffers}) for module in modules]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules]
    config, drawn = model.config.to_dict(), torch.get_rng_state()
    monkeypatch.setattr(untested, "TOLERANCE", tolerance)
    with nullcontext() if tolerance else pytest.raises(UnsupportedError):
        tokenprune.patch(model, "fastv", keep_ratio=0.5).remove()
    assert torch.equal(torch.get_rng_state(), drawn)
    assert model.config.to_dict() == config
    for module, (attributes, buffers) in zip(modules, states, strict=True):
        assert vars(module).keys() == attributes.keys()
        assert all(vars(module)[name] is value for name, value in attributes.items())
        assert all(module._buffers[name] is buffer for name, buffer in buffers.items())
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules]


def test_weights_that_are_not_loaded() -> None:
    model = llava_on(QWEN).to("meta")
    with pytest.raises(UnsupportedError, match=r"weights on the meta device\. Load them before patch"):
        tokenprune.patch(model, Grid())


@pytest.mark.parametrize("to", ["cpu", "disk"])
def test_weights_that_accelerate_offloads(to: str, tmp_path: Any) -> None:
    accelerate = pytest.importorskip("accelerate")
    model = llava_on(QWEN)
    if to == "cpu":
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        accelerate.disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    with torch.no_grad(), tokenprune.patch(model, "fastv", keep_ratio=0.5) as handle:
        model(**prompt([1]))
    assert handle.report.images[0].n_left < 36
