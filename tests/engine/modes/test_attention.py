"""Attention implementations and number formats."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.contract.answers import STRATEGY, answer, assert_answers, oracle_of
from helpers.families.base import RECENT
from helpers.tiny import ENCODES_FIRST, prompt, tiny_llava

import tokenprune
from tokenprune import PruningError

COMPILES = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",
    "ignore:_compile flag on:DeprecationWarning",
    "ignore:.*should not be instantiated:DeprecationWarning",
    r"ignore:Guards may run slower on Python 3\.13\.0:RuntimeWarning",
)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
def test_eager(llava: Any, per_row: list[int], cache: str) -> None:
    settings: dict[str, Any] = {} if cache == "dynamic" else {"cache_implementation": cache}
    assert_answers(tiny_llava(attention="eager"), llava, per_row, **settings)


@pytest.mark.slow
@COMPILES
def test_flex(llava: Any) -> None:
    """One row: of several rows with padding PyTorch 2.13 itself makes no C++ that compiles."""
    assert_answers(tiny_llava(attention="flex_attention"), llava, [1])


@pytest.mark.skipif(not RECENT, reason="this transformers cannot use flex with a static cache, patched or not")
@COMPILES
def test_flex_with_a_static_cache_is_refused() -> None:
    model = tiny_llava(attention="flex_attention")
    refusal = pytest.raises(PruningError, match='attn_implementation="sdpa", or generate without a static cache')
    with tokenprune.patch(model, STRATEGY), refusal:
        answer(model, prompt([1]), cache_implementation="static")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlashAttention needs a CUDA device")
@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
def test_flash(per_row: list[int]) -> None:
    pytest.importorskip("flash_attn", reason="FlashAttention is not installed")
    inputs = {name: tensor.cuda() for name, tensor in prompt(per_row).items()}
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    found = []
    for attention in ("sdpa", "flash_attention_2"):
        model = tiny_llava(attention=attention).cuda().bfloat16()
        with tokenprune.patch(model, STRATEGY):
            found.append(answer(model, inputs).logits[0])
    assert float((found[0] - found[1]).abs().max()) < 0.03 * float(found[0].abs().max())


@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)], ids=str)
def test_half_precision(dtype: torch.dtype, close: float) -> None:
    """Equal up to rounding: dropping and masking add the same numbers in other groups."""
    model, inputs = tiny_llava().to(dtype), prompt([1, 2])
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    with tokenprune.patch(model, STRATEGY) as handle:
        out = answer(model, inputs)
    expected = oracle_of(model, inputs, out, handle.report)
    error = (torch.stack(out.logits, 1) - expected).abs().max() / expected.abs().max()
    assert float(error) < close


@pytest.mark.skipif(not ENCODES_FIRST, reason="this transformers casts images on its own")
def test_float32_images_for_a_half_precision_model() -> None:
    """Processors make float32; autocast is one way to feed it."""
    model = tiny_llava()
    with tokenprune.patch(model, STRATEGY) as handle, torch.autocast("cpu", torch.bfloat16):
        answer(model, prompt([1]))
    assert handle.report.n_kept == 9
