"""Changes of the patch in the middle of a block diffusion model's canvas."""

from typing import Any

import pytest
import torch
from helpers.families import DENOISING
from transformers import DynamicCache

import tokenprune
from tokenprune import PruningError, Random, Strategy
from tokenprune.strategies.in_llm.late_step import LateStep

pytestmark = pytest.mark.skipif("diffusion-gemma" not in DENOISING, reason="an older transformers")
CANVAS = 6


def begun(model: Any) -> tuple[Any, dict[str, Any]]:
    """Return the logits of the step that encodes a prompt and begins a canvas, and the arguments of the next step."""
    family: Any = DENOISING["diffusion-gemma"]
    inputs = family.prompt([1])
    canvas = torch.randint(2, 9, (1, CANVAS))
    seen = torch.cat([inputs["attention_mask"], torch.ones_like(canvas)], 1)
    given = {
        **inputs,
        "attention_mask": family.prompt_masks(model, inputs),
        "cache": DynamicCache(config=model.config.text_config),
    }
    always = {"decoder_input_ids": canvas, "decoder_attention_mask": seen}
    out = model(**given, **always)
    return out.logits, {"cache": out.cache, **always}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Random(), LateStep(steps=1)),
        (LateStep(steps=1), LateStep(steps=2)),
        (LateStep(steps=(1, 2)), LateStep(steps=1)),
    ],
)
def test_another_strategy(before: Strategy, after: Strategy) -> None:
    """It cannot continue the steps of a canvas, but can begin another one from the same cache."""
    model = DENOISING["diffusion-gemma"].build()
    with torch.no_grad():
        with tokenprune.patch(model, before):
            logits, given = begun(model)
            logits = model(**given, self_conditioning_logits=logits).logits
            logits = model(**given, self_conditioning_logits=logits).logits
        with tokenprune.patch(model, after) as handle:
            with pytest.raises(PruningError, match=r"begun with another strategy.*without self_conditioning_logits"):
                model(**given, self_conditioning_logits=logits)
            logits = model(**given).logits
            model(**given, self_conditioning_logits=logits)
            assert handle.report.images[0].late_steps or after == LateStep(steps=2)


def test_an_attention_that_was_replaced() -> None:
    model = DENOISING["diffusion-gemma"].build()
    with torch.no_grad(), tokenprune.patch(model, LateStep(steps=1)):
        attention = model.model.decoder.layers[-1].self_attn
        attention._forward_pre_hooks.clear()  # as if another module were in its place
        logits, given = begun(model)
        with pytest.raises(PruningError, match=r"modules of the denoiser were replaced.*Call patch\(\) again"):
            model(**given, self_conditioning_logits=logits)
