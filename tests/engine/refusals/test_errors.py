"""Every error says what to type next, and leaves the model unchanged."""

from functools import partial
from typing import Any

import pytest
import torch
from helpers.families.base import tower
from helpers.tiny import IMAGE, SIDE, prompt, tiny_llava
from transformers import Dinov2WithRegistersConfig, LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration

import tokenprune
from tokenprune import (
    DivPrune,
    FoPru,
    GenericAdapter,
    Grid,
    PruningError,
    SettingError,
    UnsupportedError,
)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("strategy", "settings", "error", "message"),
    [
        ("foppru", {}, SettingError, r"unknown strategy 'foppru'. Did you mean 'fopru'\? Known: .*fopru, .*random"),
        ("FoPru", {}, SettingError, r"unknown strategy 'FoPru'. Did you mean 'fopru'\?"),
        ("vision-zip", {}, SettingError, r"unknown strategy 'vision-zip'. Did you mean 'visionzip'\?"),
        (None, {}, SettingError, "unknown strategy None"),
        (FoPru, {}, SettingError, r"strategy is a class; write patch\(model, FoPru\(keep_ratio=0.25\)\)"),
        ("latestep", {}, SettingError, r"LateStep has no short name. Write 'tokenprune:LateStep', or in Python tokenp"),
        ("fopru", {"keep_rate": 0.5}, SettingError, r"unknown setting 'keep_rate'. Did you mean 'keep_ratio'\?"),
        ("fopru", {"position_id": "compact"}, SettingError, "Did you mean 'position_ids'"),
        ("fopru", {"keep_ratio": 1.5}, SettingError, "keep_ratio=1.5 is not a fraction"),
        (FoPru(), {"keep_ratio": 0.5}, SettingError, r"write patch\(model, FoPru\(keep_ratio=0.5\)\)"),
        (
            "fopru",
            {"position_ids": "orignal"},
            SettingError,
            r"unknown position_ids 'orignal'. Did you mean 'original'",
        ),
        (FoPru(layer=7), {}, UnsupportedError, r"layer=7 is not in the vision tower: write 0 to 2, or -3"),
    ],
)
def test_wrong_calls(llava: Any, strategy: Any, settings: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        tokenprune.patch(llava, strategy, **settings)
    with tokenprune.patch(llava, Grid()) as handle:  # an existing patch survives a second one that fails
        with pytest.raises(error, match=message):
            tokenprune.patch(llava, strategy, **settings)
        llava(**prompt([1]))
        assert handle.report.n_kept == 9


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_supported_model() -> None:
    llama = LlamaForCausalLM(LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9))
    for model in (llama, torch.nn.Linear(2, 2)):
        why = r"no model adapter for .*tokenprune models.*trust_remote_code.*=tokenprune.Generic.*adapters/README.md"
        with pytest.raises(UnsupportedError, match=f"(?s){why}"):
            tokenprune.patch(model, FoPru())
    others: list[Any] = ["llava-hf/llava-1.5-7b-hf", None, LlavaForConditionalGeneration]
    for other in others:
        for call in (partial(tokenprune.patch, strategy=FoPru()), tokenprune.unpatch):
            with pytest.raises(UnsupportedError, match=r"is not a model\. Pass the loaded Hugging Face model"):
                call(other)


def test_the_generic_adapter_says_what_it_needs() -> None:
    llama = LlamaForCausalLM(LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9))
    with pytest.raises(UnsupportedError, match="does not follow the interface that the generic adapter needs"):
        tokenprune.patch(llama, FoPru(), adapter=GenericAdapter)
    wrong: Any = "generic"
    with pytest.raises(SettingError, match="not a subclass of ModelAdapter"):
        tokenprune.patch(llama, FoPru(), adapter=wrong)


def test_the_generic_adapter_on_a_class_of_ones_own(llava: Any) -> None:
    inputs = prompt([1])
    with torch.no_grad(), tokenprune.patch(llava, DivPrune(keep_ratio=0.25)) as handle:
        logits, kept = llava(**inputs).logits, handle.report.images[0].kept
    with torch.no_grad(), tokenprune.patch(llava, DivPrune(keep_ratio=0.25), adapter=GenericAdapter) as handle:
        assert torch.equal(llava(**inputs).logits, logits)
        assert torch.equal(handle.report.images[0].kept, kept)
    with pytest.raises(UnsupportedError, match="needs attention of one vision-encoder layer"):
        tokenprune.patch(llava, FoPru(), adapter=GenericAdapter)


def test_a_model_without_a_vision_tower() -> None:
    model = tiny_llava("clip")
    del model.model.vision_tower
    with pytest.raises(UnsupportedError, match="without a vision tower has no visual tokens to prune"):
        tokenprune.patch(model, FoPru())


def test_registers_are_not_taken_for_patches() -> None:
    vision = Dinov2WithRegistersConfig(**tower(SIDE))
    with pytest.raises(UnsupportedError, match="'dinov2_with_registers' vision tower, whose visual tokens"):
        tokenprune.patch(tiny_llava("clip", vision_config=vision), FoPru())


@pytest.mark.parametrize(("kind", "select", "fitting"), [("clip", "full", "default"), ("siglip", "default", "full")])
def test_tokens_that_are_no_patches(kind: str, select: str, fitting: str) -> None:
    model = tiny_llava(kind)
    model.config.vision_feature_select_strategy = select
    with pytest.raises(UnsupportedError, match=f"Set model.config.vision_feature_select_strategy = '{fitting}'"):
        tokenprune.patch(model, FoPru())


@pytest.mark.parametrize("version", ["4.57.3", "5.3.0", "6.0.0", "6.1.0.dev0"])
def test_other_transformers_versions(llava: Any, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.__version__", version)
    with pytest.raises(UnsupportedError, match=rf'transformers {version} is outside.*pip install "transformers>='):
        tokenprune.patch(llava, FoPru())


def test_no_report_before_an_image(llava: Any) -> None:
    with tokenprune.patch(llava, FoPru()) as handle:
        llava(**prompt([0]))
        with pytest.raises(PruningError, match="has not seen an image"):
            _ = handle.report
        llava(**prompt([1]))
        report = handle.report
        llava(**prompt([0]))
        assert handle.report is report
    assert "kept 9 of 36 visual tokens, keep ratio 25.0%" in repr(handle.report)
    assert "removed" in repr(handle)


def test_two_images_for_one_placeholder(llava: Any) -> None:
    """transformers raises the error; the patch must still work afterwards."""
    inputs = prompt([1])
    wrong = {**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}
    with torch.no_grad(), tokenprune.patch(llava, FoPru()) as handle:
        before = llava(**inputs).logits
        for call in (llava, partial(llava.generate, max_new_tokens=2)):
            with pytest.raises(ValueError, match="Image features and image tokens do not match"):
                call(**wrong)
            assert torch.equal(llava(**inputs).logits, before)
            assert handle.report.n_kept == 9


def test_arguments_of_the_unpruned_length(llava: Any) -> None:
    inputs = prompt([1])
    with torch.no_grad(), tokenprune.patch(llava, FoPru()):
        with pytest.raises(PruningError, match="logits_to_keep count the tokens of the unpruned sequence"):
            llava(**inputs, logits_to_keep=torch.tensor([3, 40]))
        llava.model(**inputs)
        llava(**prompt([0]), logits_to_keep=torch.tensor([0, 2]))


def test_masks_of_another_length(llava: Any) -> None:
    inputs = prompt([1])
    length = inputs["input_ids"].shape[1]
    causal = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    with torch.no_grad(), tokenprune.patch(llava, FoPru()):
        for mask in (torch.ones(1, length - 3).long(), causal[..., 3:], causal[:, :, 3:], causal[0]):
            inputs["attention_mask"] = mask
            with pytest.raises(PruningError, match=f"mask of shape .* hold {length} tokens.*Pass a mask of shape"):
                llava(**inputs)


@pytest.mark.parametrize("how", ["argument", "config"])
def test_images_encoded_into_a_tuple(how: str) -> None:
    model, pixels = tiny_llava(), prompt([1])["pixel_values"]
    given: dict[str, Any] = {"return_dict": False} if how == "argument" else {}
    if how == "config":
        model.config.return_dict = False
    with torch.no_grad():
        plain = model.model.get_image_features(pixels, **given)
        with tokenprune.patch(model, FoPru()):
            patched = model.model.get_image_features(pixels, **given)
    assert isinstance(plain, tuple)
    assert isinstance(patched, tuple)
    assert len(patched) == len(plain)
    assert torch.equal(patched[0], plain[0])


@pytest.mark.parametrize("strategy", ["backgroundpruning", "divprune", "flowcut", "fopru", "prumerge", "visionzip"])
def test_pixels_that_are_not_numbers(llava: Any, strategy: str) -> None:
    inputs = prompt([1, 1])
    inputs["pixel_values"][1, 1, 5, 5] = torch.nan
    named = r" cannot select visual tokens of image (tile )?1 of the call: .* NaN.*pixel_values\.isnan"
    with torch.no_grad(), tokenprune.patch(llava, strategy, keep_ratio=0.25):
        with pytest.raises(PruningError, match=named):
            llava(**inputs)
        llava(**prompt([1, 1]))


@pytest.mark.parametrize("shown", [0, 1])
@pytest.mark.parametrize("n_rows", [1, 2])
def test_a_mask_that_shows_nothing_that_is_left(llava: Any, n_rows: int, shown: int) -> None:
    """A mask that shows only a dropped token or, in a batch of one row, nothing at all."""
    inputs = prompt([1] * n_rows)
    with torch.no_grad(), tokenprune.patch(llava, Grid(keep=4)) as handle:
        llava(**inputs)
        kept = handle.report.images[-1].kept.tolist()
        columns = (inputs["input_ids"][-1] == IMAGE).nonzero()[:, 0]
        dropped = next(column for i, column in enumerate(columns.tolist()) if i not in kept)
        inputs["attention_mask"][-1] = 0
        inputs["attention_mask"][-1, dropped] = shown
        if n_rows == 2 and not shown:  # a row of only padding
            assert llava(**inputs).logits[0].isfinite().all()
            return
        with pytest.raises(
            PruningError, match=f"row {n_rows - 1} of attention_mask masks out every token that is left"
        ):
            llava(**inputs)
