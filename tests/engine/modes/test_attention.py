"""Attention implementations and number formats."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.contract.answers import STRATEGY, answer, assert_answers, oracle_of
from helpers.contract.oracle import assert_close
from helpers.families import FAMILIES
from helpers.families.base import RECENT
from helpers.tiny import CACHE, ENCODES_FIRST, prompt, tiny_llava
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, StaticCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

import tokenprune
from tokenprune import AttentionMass, FastV, PruningError, UnsupportedError
from tokenprune.adapters import adapter_for

COMPILES = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",
    "ignore:_compile flag on:DeprecationWarning",
    "ignore:.*should not be instantiated:DeprecationWarning",
    r"ignore:Guards may run slower on Python 3\.13\.0:RuntimeWarning",
)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
def test_eager_answers_as_masking(llava: Any, per_row: list[int], cache: str) -> None:
    settings: dict[str, Any] = {} if cache == "dynamic" else {"cache_implementation": cache}
    assert_answers(tiny_llava(attention="eager"), llava, per_row, **settings)


@pytest.mark.slow
@COMPILES
def test_flex_answers_as_masking(llava: Any) -> None:
    """Only one row: for padded batches, the C++ code that PyTorch 2.13 generates does not compile."""
    assert_answers(tiny_llava(attention="flex_attention"), llava, [1])


@pytest.mark.skipif(not RECENT, reason="this transformers cannot use flex with a static cache, patched or not")
@COMPILES
def test_flex_with_a_static_cache_is_refused() -> None:
    model = tiny_llava(attention="flex_attention")
    refusal = pytest.raises(PruningError, match='attn_implementation="sdpa", or generate without a static cache')
    with tokenprune.patch(model, STRATEGY), refusal:
        answer(model, prompt([1]), cache_implementation="static")


def decoding_with(attention: str) -> Any:
    """Return a model whose language model has this attention, which transformers itself would not allow on a CPU."""
    model = tiny_llava()
    model.config.get_text_config()._attn_implementation = attention
    return model


@pytest.fixture
def own() -> Iterator[str]:
    """A user's own attention, for which transformers makes no masks until theirs is registered, too."""
    AttentionInterface.register("own", sdpa_attention_forward)
    yield "own"
    for interface in (AttentionInterface, AttentionMaskInterface):
        interface._global_mapping.pop("own", None)


def test_own_attention_without_masks_is_refused(own: str) -> None:
    """Rows that keep fewer tokens than others have holes, which it would attend to."""
    refusal = pytest.raises(UnsupportedError, match=r"makes no masks for attn_implementation='own'.*register\('own'")
    with refusal:
        tokenprune.patch(decoding_with(own), STRATEGY)
    with refusal:
        tokenprune.probe(decoding_with(own), needs="text_attention", decoder_layers=[0])
    model = tiny_llava()
    with tokenprune.patch(model, STRATEGY), refusal:
        model.config.get_text_config()._attn_implementation = own
        model(**prompt([1, 2]))


def test_vllm_asks_for_an_adapter_although_it_makes_the_masks_itself(own: str) -> None:
    assert adapter_for(decoding_with(own)).vision_tower is not None


def test_own_attention_with_masks_answers_as_masking(llava: Any, own: str) -> None:
    AttentionMaskInterface.register(own, sdpa_mask)
    assert_answers(decoding_with(own), llava, [1, 2])


@pytest.mark.usefixtures("flash_on_cpu")
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize("strategy", ["fopru", "fastv:layer=1"])
def test_masks_and_gaps_in_flash(cache: str, position_ids: Any, strategy: str) -> None:
    """The same as with sdpa, in two turns with an image each. A static cache has free room after the prompt, and gaps
    in the second image's position IDs look like borders between packed sequences."""
    found = []
    for attention in ("sdpa", "flash_attention_2"):
        model, first, second = decoding_with(attention), prompt([1], seed=1), prompt([1], seed=3)
        n_first, n_all = first["input_ids"].shape[1], 2 * first["input_ids"].shape[1]
        config = model.config.get_text_config()
        held: Any = DynamicCache() if cache == "dynamic" else StaticCache(config=config, max_cache_len=n_all + 2)
        steps = []
        with torch.no_grad(), tokenprune.patch(model, strategy, keep_ratio=0.25, position_ids=position_ids):
            for inputs, begin, end in ((first, 0, n_first), (second, n_first, n_all)):
                own = {"attention_mask": torch.ones(1, end).long(), "position_ids": torch.arange(begin, end)[None]}
                steps.append(model(**{**inputs, **own, CACHE: held}).logits[0, -1])
            for column in (n_all, n_all + 1):
                own = {"attention_mask": torch.ones(1, column + 1).long(), "position_ids": torch.tensor([[column]])}
                steps.append(model(input_ids=torch.tensor([[5]]), **own, **{CACHE: held}).logits[0, -1])
        assert not any(layer._forward_pre_hooks for layer in model.model.language_model.layers)
        found.append(torch.stack(steps))
    assert_close(found[1], found[0])


@pytest.mark.usefixtures("flash_on_cpu")
def test_nothing_is_left_of_an_interrupted_turn() -> None:
    """After a KeyboardInterrupt, torch calls none of the hooks that clean up after other exceptions."""
    model, inputs, cache = decoding_with("flash_attention_2"), prompt([1]), DynamicCache()
    layers, hooked = model.model.language_model.layers, []

    def interrupt(*_: Any) -> None:
        hooked.extend(bool(layer._forward_pre_hooks) for layer in layers)
        raise KeyboardInterrupt

    handle = tokenprune.patch(model, "grid", keep_ratio=0.25)
    with torch.no_grad():
        model(**{**inputs, CACHE: cache})
        hook = model.model.language_model.norm.register_forward_pre_hook(interrupt)
        mask = torch.ones(1, 2 * inputs["input_ids"].shape[1]).long()
        with pytest.raises(KeyboardInterrupt):
            model(**{**inputs, "attention_mask": mask, CACHE: cache})
    hook.remove()
    assert hooked == [True] * len(layers)
    assert not any(layer._forward_pre_hooks for layer in layers)
    handle.remove()


@pytest.mark.usefixtures("flash_on_cpu")
@pytest.mark.parametrize("per_row", [[1, 1], [1, 2]], ids=str)
def test_rows_of_a_stage_in_flash(per_row: list[int]) -> None:
    """Rows without padding that keep different numbers of tokens inside the language model."""
    texts = [17, 17] if per_row == [1, 1] else [36, 12]
    inputs = prompt(per_row, texts=texts)
    assert bool(inputs["attention_mask"].all())
    found = []
    for attention in ("sdpa", "flash_attention_2"):
        model = decoding_with(attention)
        strategy = AttentionMass(layer=1, mass=0.5) if per_row == [1, 1] else FastV(keep=4, layer=1)
        with tokenprune.patch(model, strategy):
            found.append(torch.stack(answer(model, inputs).logits))
    assert_close(found[1], found[0])


@pytest.mark.usefixtures("flash_on_cpu")
@pytest.mark.parametrize("strategy", ["fopru", "fastv:layer=1"])
@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
@pytest.mark.parametrize("case", ["llava-clip", "llava-next", "mistral3", "qwen2.5-vl", "qwen3-vl"])
@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_kernels_answer_as_sdpa(attention: str, case: str, per_row: list[int], strategy: str) -> None:
    """In the language model, in bfloat16. `--device cuda` runs the kernels."""
    family = FAMILIES[case]
    if attention == "flex_attention":
        text = family.stored["text_config"]
        if torch.get_default_device().type == "cpu" or "mrope_section" in str(text):
            pytest.skip("flex attention is compiled, for heads of 16 or more")
        family = type(family)(case, text_config={**text, "head_dim": 16})
    inputs = family.prompt(per_row)
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    found, kept = [], []
    for kernel in ("sdpa", attention):
        model = family.build().bfloat16()
        model.config.get_text_config()._attn_implementation = kernel
        with tokenprune.patch(model, strategy, keep_ratio=0.25) as handle:
            found.append(answer(model, inputs).logits[0])
            kept.append([image.kept_at(1).tolist() for image in handle.report.images])
    assert kept[0] == kept[1]
    assert float((found[0] - found[1]).abs().max()) < 0.03 * float(found[0].abs().max())


@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)], ids=str)
def test_half_precision_is_masking_up_to_rounding(dtype: torch.dtype, close: float) -> None:
    """Dropping and masking add the same numbers in a different order."""
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
