"""Proportional attention: kept tokens receive as much attention as the tokens that they stand for."""

from typing import Any

import pytest
import torch
from helpers.contract.cells import CASES, DEPTH, FIRST_CASE, model_of
from helpers.contract.modes import MODES, run_cell
from helpers.contract.oracle import as_reported, assert_close, dropped_columns, of_left
from helpers.families import FAMILIES
from helpers.families.base import CACHE

import tokenprune
from tokenprune.adapters import adapter_for
from tokenprune.engine.cache.pruned import index_of
from tokenprune.serving.vllm.startup.refusals import check_strategy
from tokenprune.strategy import MergingStrategy

POOLED = tokenprune.AveragePooling(keep_ratio=0.3, attention_bias="size")
#: Every strategy for images that merges, with settings that make it merge here.
MORE: dict[str, dict[str, Any]] = {
    "prumerge": {"neighbours": 4},
    "sparsevlm": {"keep_ratio": 0.5, "recycle": 1.0, "clusters": 0.2},
}
MERGING = {
    name: cls(**{"keep_ratio": 0.3, "attention_bias": "size", **MORE.get(name, {})})
    for name, cls in tokenprune.STRATEGIES.items()
    if issubclass(cls, MergingStrategy) and name != "fastvid"  # for videos
}


@pytest.mark.parametrize("case", CASES)
def test_every_family(case: str) -> None:
    check(case, POOLED, "greedy", "padded")


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "greedy"])
@pytest.mark.parametrize("case", [FIRST_CASE, "qwen2-vl", "gemma3-window"])
def test_every_mode(case: str, mode: str) -> None:
    check(case, POOLED, mode, "padded")


@pytest.mark.parametrize("name", MERGING)
@pytest.mark.parametrize("mode", ["greedy", "static"])
def test_every_merging_strategy(name: str, mode: str) -> None:
    check(FIRST_CASE, MERGING[name], mode, "padded")


def test_a_video() -> None:
    check("qwen2-vl", tokenprune.FastVID(keep_ratio=0.5, attention_bias="size"), "greedy", "video")


def test_a_step_of_several() -> None:
    """Sizes count what all steps have merged."""
    steps = (
        tokenprune.PruMerge(keep_ratio=0.6, neighbours=4),
        tokenprune.VisionZip(keep_ratio=0.3, attention_bias="size"),
    )
    check(FIRST_CASE, tokenprune.Compose(*steps), "greedy", "padded")


def check(case: str, strategy: tokenprune.Strategy, mode: str, batch: str) -> None:
    """Check that a run has the logits of the masking oracle with the bias added, layer by layer."""
    family = FAMILIES[case]
    model = model_of(
        case, DEPTH if "text_attention" in strategy.needs or isinstance(strategy, tokenprune.VFlowOpt) else None
    )
    adapter = adapter_for(model)
    if adapter.decoder.layers.contract != "masking":
        with pytest.raises(tokenprune.UnsupportedError, match="attention_bias"):
            tokenprune.patch(model, strategy)
        return
    if "grid" not in adapter.offers:
        strategy = tokenprune.VisionZip(keep_ratio=0.3, contextual=0.5, attention_bias="size")  # few tokens also merge
    if not strategy.needs <= adapter.offers:
        pytest.skip("it offers neither attention nor grids")
    with family.expectation(mode):
        with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
            run = run_cell(family, model, mode, batch)
        report, ids = handle.report, run.whole(family)["input_ids"]
        with as_reported(model, ids, [report], [report]):
            expected = run.expected(family, model, dropped_columns(ids, [report]))
        with as_reported(model, ids, [report]):
            plain = run.expected(family, model, dropped_columns(ids, [report]))
        again = mode == "uncached" and "text_attention" in strategy.needs  # each step reads the text's attention again
        steps = slice(-1 if again else None, None)
        assert_close(run.logits[:, steps], expected[:, steps])
        assert (plain - expected).abs().max() > 1e-3


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_padded_forward(padding: str, attention: str) -> None:
    family = FAMILIES[FIRST_CASE]
    model = family.build(attention)
    inputs = family.prompt([2, 1], padding=padding)
    with torch.no_grad(), tokenprune.patch(model, POOLED) as handle:
        logits = model(**inputs, position_ids=family.position_ids(model, inputs)).logits
    dropped = dropped_columns(inputs["input_ids"], [handle.report])
    with as_reported(model, inputs["input_ids"], [handle.report], [handle.report]):
        expected = family.oracle(model, inputs, dropped)
    for row in range(2):
        left = (inputs["attention_mask"][row].bool() & ~dropped[row]).nonzero()[:, 0]
        assert_close(of_left(logits[row], inputs["attention_mask"][row], left), expected[row, left])


def test_what_cannot_have_a_bias_is_refused_when_it_is_patched() -> None:
    model = FAMILIES[FIRST_CASE].build()
    config = model.config.get_text_config()
    for implementation in ("flash_attention_2", "flex_attention"):
        config._attn_implementation = implementation
        with pytest.raises(tokenprune.UnsupportedError, match=f"'{implementation}' takes no mask.*sdpa"):
            tokenprune.patch(model, POOLED)
        tokenprune.patch(model, tokenprune.AveragePooling(keep_ratio=0.3)).remove()
    config._attn_implementation = "sdpa"
    with tokenprune.patch(model, POOLED):
        config._attn_implementation = "flash_attention_2"
        with pytest.raises(tokenprune.UnsupportedError, match="'flash_attention_2' takes no mask"):
            model(**FAMILIES[FIRST_CASE].prompt([1]))
    with pytest.raises(tokenprune.SettingError, match='attention_bias="size"'):
        tokenprune.VisionZip(attention_bias="sizes")  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        tokenprune.UnsupportedError, match=r'inside vLLM with an attention_bias.*Leave "attention_bias" out'
    ):
        check_strategy(tokenprune.VisionZip(attention_bias="size"), 32, "TokenPruneLlava")
    check_strategy(tokenprune.VisionZip(), 32, "TokenPruneLlava")


def test_gradients_and_labels() -> None:
    family = FAMILIES[FIRST_CASE]
    model, inputs = family.build(), family.prompt([1])
    with tokenprune.patch(model, tokenprune.VisionZip(keep_ratio=0.3, attention_bias="size")):
        out = model(**inputs, labels=inputs["input_ids"], use_cache=True)
        out.loss.backward()
    index = index_of(out[CACHE])
    assert not index.bias.requires_grad
    assert all(parameter.grad is not None for parameter in model.model.multi_modal_projector.parameters())


def test_a_cache_without_bias_has_none() -> None:
    """So its decode steps make the same masks as before."""
    model, inputs = model_of(FIRST_CASE), FAMILIES[FIRST_CASE].prompt([1])
    with torch.no_grad(), tokenprune.patch(model, tokenprune.AveragePooling(keep_ratio=0.3)):
        index = index_of(model(**inputs, use_cache=True)[CACHE])
    assert index.bias is None
