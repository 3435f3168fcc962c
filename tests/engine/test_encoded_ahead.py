"""Images that were encoded for one strategy, and are pruned by another."""

from typing import Any

import pytest
import torch
from engine.cache.test_interrupts import interrupt
from helpers.families.base import ENCODES_FIRST
from helpers.tiny import prompt, tiny_llava

import tokenprune
from tokenprune import SCOPE, DivPrune, FlowCut, FoPru, Grid, PruningError, Random, Strategy, VisionZip

pytestmark = pytest.mark.skipif(not ENCODES_FIRST, reason="this transformers does not take encoded images")


def encoded(model: Any, strategy: Strategy) -> dict[str, Any]:
    inputs = prompt([1])
    with torch.no_grad(), tokenprune.patch(model, strategy):
        output = model.model.get_image_features(inputs["pixel_values"], return_dict=True)
    return {"input_ids": inputs["input_ids"], "mm_encoder_outputs": {"image": output}}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (FoPru(layer=0), FoPru(layer=1)),
        (DivPrune(), FoPru()),
        (FoPru(), Random()),
        (FlowCut(), DivPrune()),
        (FoPru(), SCOPE()),
    ],
)
def test_one_that_reads_something_else(llava: Any, before: Strategy, now: Strategy) -> None:
    given = encoded(llava, before)
    message = rf"encoded for {type(before).__name__}\(.* that {type(now).__name__}\(.* reads. Encode them again"
    with torch.no_grad(), tokenprune.patch(llava, now), pytest.raises(PruningError, match=message):
        llava(**given)


@pytest.mark.parametrize(
    ("before", "now"),
    [(FoPru(), VisionZip()), (FoPru(), FoPru(score="cls")), (FoPru(layer=0), DivPrune()), (DivPrune(), Grid())],
    ids=str,
)
def test_one_that_reads_the_same_or_less(llava: Any, before: Strategy, now: Strategy) -> None:
    given = encoded(llava, before)
    with torch.no_grad(), tokenprune.patch(llava, now):
        assert torch.equal(llava(**given).logits, llava(**prompt([1])).logits)


def test_one_that_has_looked_at_them(llava: Any) -> None:
    """The tower's attention is freed once a strategy has used it, and an equal one continues with the selection."""
    given = encoded(llava, FoPru(keep_ratio=0.5))
    with torch.no_grad():
        with tokenprune.patch(llava, FoPru(keep_ratio=0.5)):
            first = llava(**given).logits
        with tokenprune.patch(llava, FoPru(keep_ratio=0.5)):
            assert torch.equal(llava(**given).logits, first)
        said = r"encoded for FoPru\(keep_ratio=0.5.*Encode them again"
        with tokenprune.patch(llava, FoPru(keep_ratio=0.25)), pytest.raises(PruningError, match=said):
            llava(**given)


def test_images_encoded_before_the_patch(llava: Any) -> None:
    """Also if another call with images, encoded in time, was never made."""
    inputs = prompt([1])
    with torch.no_grad():
        before = llava.model.get_image_features(inputs["pixel_values"], return_dict=True)
        with tokenprune.patch(llava, FoPru()):
            hook = llava.register_forward_pre_hook(interrupt)
            given = {"input_ids": inputs["input_ids"], "mm_encoder_outputs": {"image": before}}
            encoded = llava.model.get_image_features(inputs["pixel_values"], return_dict=True)
            with pytest.raises(KeyboardInterrupt):
                llava(**{**given, "mm_encoder_outputs": {"image": encoded}})
            hook.remove()
            with pytest.raises(PruningError, match=r"encoded outside this patch.*encode after patch\(\)"):
                llava(**given)
            assert torch.equal(
                llava(**{**given, "mm_encoder_outputs": {"image": encoded}}).logits, llava(**inputs).logits
            )


def test_a_cache_of_features(llava: Any) -> None:
    """A user's own cache in front of the model: what it returns was recorded when it was encoded."""
    inputs, encode, cached = prompt([1]), llava.model.get_image_features, []

    def encode_once(pixel_values: Any, **kwargs: Any) -> Any:
        if not cached:
            cached.append(encode(pixel_values, **kwargs))
        return cached[0]

    llava.model.get_image_features = encode_once
    try:
        with torch.no_grad(), tokenprune.patch(llava, FoPru(keep=9)) as handle:
            first = llava(**inputs).logits
            assert torch.equal(llava(**inputs).logits, first)
            assert handle.report.n_kept == 9
        with torch.no_grad(), tokenprune.patch(llava, FoPru(layer=0)), pytest.raises(PruningError, match="encoded for"):
            llava(**inputs)
    finally:
        del llava.model.get_image_features


def test_a_cache_of_features_that_is_set_after_the_patch() -> None:
    """The cache hides its hits from the patch."""
    model, inputs = tiny_llava(), prompt([1])
    tokenprune.patch(model, Grid(keep=9))
    with torch.no_grad():
        kept = model.model.get_image_features(inputs["pixel_values"], return_dict=True)
        model.model.get_image_features = lambda *args, **kwargs: kept
        with pytest.raises(PruningError, match=r"a cache of features, before patch\(\)"):
            model(**inputs)
