"""PEFT: a wrapped model, a model wrapped after the patch, merged adapters, training of adapters only, and adapters that
are active from certain tokens on."""

from typing import Any

import pytest
import torch
from helpers.contract.answers import STRATEGY, assert_answers, n_logits
from helpers.contract.oracle import as_reported, assert_close, dropped_columns, of_left, seen_by
from helpers.families import FAMILIES, present
from helpers.tiny import prompt, tiny_llava
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model

import tokenprune
from tokenprune import FastV, Grid, PruningError, Strategy, UnsupportedError
from tokenprune.engine.pruner import Pruner

#: PEFT uses a name that transformers 5.2x has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

DECODER = r".*language_model.*\.(q_proj|v_proj)"
EVERYWHERE = ["q_proj", "k_proj", "v_proj", "fc1", "linear_1", "lm_head"]  # tower, projector, decoder and head


def with_lora(model: Any, targets: Any = EVERYWHERE) -> Any:
    torch.manual_seed(5)
    return get_peft_model(model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False)).eval()


@pytest.mark.parametrize("inner", [False, True], ids=["wrapper", "inner"])
@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
def test_a_wrapped_model(per_row: list[int], inner: bool) -> None:
    """Both the wrapper and the model inside can be patched, and share the patch."""
    wrapped = with_lora(tiny_llava())
    base = wrapped.get_base_model()
    assert_answers(base if inner else wrapped, base, per_row)
    handle = tokenprune.patch(base if inner else wrapped, STRATEGY)
    assert n_logits(wrapped, prompt([1])) == 15
    assert handle.report.n_kept == 9
    tokenprune.unpatch(wrapped)
    assert n_logits(wrapped, prompt([1])) == 42


def test_wrapped_after_the_patch() -> None:
    """Adapters of the decoder do not affect the tower. Those of the tower change the attention that FoPru reads, which
    is an error."""
    model = tiny_llava()
    tokenprune.patch(model, STRATEGY)
    assert n_logits(with_lora(model, DECODER), prompt([1])) == 15

    model = tiny_llava()
    tokenprune.patch(model, Grid())
    assert n_logits(with_lora(model), prompt([1])) == 15  # needs no attention

    model = tiny_llava()
    tokenprune.patch(model, STRATEGY)
    wrapped = with_lora(model)
    with pytest.raises(PruningError, match=r"replaced after patch\(\). Call patch\(\) again, after get_peft_model"):
        n_logits(wrapped, prompt([1]))
    assert_answers(wrapped, model, [1])


def test_merged_adapters() -> None:
    wrapped = with_lora(tiny_llava())
    base = wrapped.get_base_model()
    wrapped.merge_adapter()
    assert_answers(wrapped, base, [1, 2])
    wrapped.unmerge_adapter()
    tokenprune.patch(wrapped, STRATEGY)
    model = wrapped.merge_and_unload()
    with pytest.raises(PruningError, match="merge_and_unload and the like"):
        n_logits(model, prompt([1]))
    assert_answers(model, model, [1, 2])
    assert Pruner.on(model) is None


def test_training_adapters_with_labels() -> None:
    """Labels are shortened like without a wrapper."""
    wrapped = with_lora(tiny_llava(), DECODER).train()
    inputs = prompt([1, 2])
    with tokenprune.patch(wrapped, STRATEGY):
        out = wrapped(**inputs, labels=inputs["input_ids"])
        out.loss.backward()
    gradients = {name: p.grad for name, p in wrapped.named_parameters() if p.grad is not None}
    assert len(gradients) == 8  # two layers, two targets, two factors
    assert all("lora" in name and bool(grad.abs().max() > 0) for name, grad in gradients.items())


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("strategy", [STRATEGY, FastV(keep_ratio=0.25, layer=1)], ids=["", "stages"])
def test_adapters_that_are_active_from_certain_tokens_on(strategy: Strategy, padding: str, labelled: bool) -> None:
    """aLoRA counts positions from the end of the unpruned rows, including padding."""
    called = [7, 8]
    torch.manual_seed(5)
    targets = {"target_modules": DECODER, "alora_invocation_tokens": called, "task_type": "CAUSAL_LM"}
    wrapped = get_peft_model(tiny_llava(), LoraConfig(r=2, init_lora_weights=False, **targets)).eval()
    family, inputs = FAMILIES["llava-clip"], prompt([1, 1], texts=[8, 4], padding=padding)
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    for row in range(2):
        ids[row, real[row].nonzero()[-3:-1, 0]] = torch.tensor(called)
    positions = family.position_ids(wrapped, inputs)
    labels = {"labels": ids.masked_fill(~real, -100)} if labelled else {}
    with torch.no_grad():
        with tokenprune.patch(wrapped, strategy) as handle:
            logits = wrapped(**inputs, position_ids=positions, **labels).logits
        report = handle.report
        mask = family.mask(inputs, dropped_columns(ids, [report]))
        with as_reported(wrapped.get_base_model(), ids, [report]):
            given = {**inputs, "attention_mask": mask, "position_ids": positions}
            expected = wrapped(**given, use_cache=False).logits
    left = real & ~dropped_columns(ids, [seen_by(report, 1)])
    for row in range(2):
        columns = left[row].nonzero()[:, 0]
        assert_close(of_left(logits[row], inputs["attention_mask"][row], columns), expected[row, columns])


@pytest.mark.parametrize("name", present("llava-clip", "llama4", "nemotron-omni"))
def test_past_the_hooks_of_the_model(name: str) -> None:
    """PEFT up to 0.20 calls `forward` of the inner model. Llama 4 and Nemotron are their own base models."""
    family, model = FAMILIES[name], FAMILIES[name].build()
    inputs = family.prompt([1])
    with torch.no_grad(), tokenprune.patch(model, Grid(keep_ratio=0.25)) as handle:
        logits = model.forward(**inputs).logits
        assert handle.report.n_kept < handle.report.n_visual
        assert torch.equal(logits, model(**inputs).logits)
        with pytest.raises(PruningError, match="cu_seq_lens_q count the tokens of the unpruned sequence"):
            model.forward(**inputs, cu_seq_lens_q=torch.tensor([0, 9]))
        assert torch.equal(logits, model.forward(inputs["input_ids"], **dict([*inputs.items()][1:])).logits)
    assert "forward" not in vars(model)


def test_prompt_learning_is_refused() -> None:
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=2, num_layers=2, token_dim=32, num_attention_heads=2
    )
    wrapped = get_peft_model(tiny_llava(), config)
    with pytest.raises(UnsupportedError, match=r"PREFIX_TUNING puts virtual tokens before the prompt.*Use LoRA"):
        tokenprune.patch(wrapped, STRATEGY)


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")
@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")
@pytest.mark.parametrize("config", [PrefixTuningConfig, PromptTuningConfig])
@pytest.mark.parametrize("wrapped_first", [True, False])
def test_prompt_learning_around_a_patched_model(config: Any, wrapped_first: bool) -> None:
    """Its `generate` is refused. Its forward is exact."""
    torch.manual_seed(0)
    model, learning = tiny_llava(), config(task_type="CAUSAL_LM", num_virtual_tokens=3)
    if wrapped_first:
        wrapped = get_peft_model(model, learning).eval()
        handle = tokenprune.patch(wrapped.get_base_model(), STRATEGY)
    else:
        handle = tokenprune.patch(model, STRATEGY)
        wrapped = get_peft_model(model, learning).eval()
    inputs = prompt([1, 1], texts=[3, 5])
    with pytest.raises(UnsupportedError, match=r"_TUNING puts virtual tokens before the prompt.*Use LoRA"):
        wrapped.generate(**inputs, max_new_tokens=2)
    with torch.no_grad():
        logits = wrapped(**inputs).logits
        left = inputs["attention_mask"].bool() & ~dropped_columns(inputs["input_ids"], [handle.report])
        handle.remove()
        expected = wrapped(**{**inputs, "attention_mask": left.long()}).logits[:, -left.shape[1] :]
    for row in range(2):
        assert_close(logits[row, -int(left[row].sum()) :], expected[row, left[row]])
