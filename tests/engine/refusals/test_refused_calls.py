"""Calls of a patched model that cannot be pruned raise an error, the patch's or the model's own."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.families.base import CACHE
from helpers.tiny import prompt

import tokenprune
from tokenprune import (
    DivPrune,
    FastV,
    FlowCut,
    FoPru,
    GenericAdapter,
    Grid,
    PruningError,
    Random,
    Selection,
    UnsupportedError,
)
from tokenprune.strategy import Stage
from tokenprune.tokens import StageTokens, TowerTokens, VisualTokens


def test_features_that_do_not_tell_images_apart(llava: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If every token counted as an image, nothing would be dropped, silently."""
    encode = type(llava.model).get_image_features

    def flat(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = encode(self, *args, **kwargs)
        output.pooler_output = torch.cat(list(output.pooler_output))
        return output

    monkeypatch.setattr(type(llava.model), "get_image_features", flat)
    with (
        torch.no_grad(),
        tokenprune.patch(llava, DivPrune(keep_ratio=0.25), adapter=GenericAdapter),
        pytest.raises(PruningError, match=r"all images as one matrix of shape \(72, 32\).* Write an adapter"),
    ):
        llava(**prompt([2]))


def test_a_call_without_text_is_the_models_to_refuse(llava: Any) -> None:
    inputs = prompt([1])
    with tokenprune.patch(llava, FoPru()), pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        llava(pixel_values=inputs["pixel_values"])


def test_another_selection_of_patches_in_a_call(llava: Any) -> None:
    inputs = prompt([1])
    with (
        torch.no_grad(),
        tokenprune.patch(llava, FoPru()),
        pytest.raises(
            UnsupportedError, match=r"vision_feature_select_strategy='full' with a clip.* tower does not give"
        ),
    ):
        llava(**inputs, vision_feature_select_strategy="full")


def test_a_mask_longer_than_the_conversation(llava: Any) -> None:
    with torch.no_grad(), tokenprune.patch(llava, FoPru()):
        output = llava(input_ids=torch.randint(2, 80, (1, 6)), use_cache=True)
        with pytest.raises(
            PruningError, match=r"covers 12 tokens; there are 7 so far, 6 of them .* or the mask is too long"
        ):
            llava(
                input_ids=torch.tensor([[5]]),
                attention_mask=torch.ones(1, 12).long(),
                **{CACHE: next(value for value in output.values() if hasattr(value, "get_seq_length"))},
            )


def test_patches_without_a_mask_are_all_real() -> None:
    family = FAMILIES["lfm2-vl"]
    model, inputs = family.build(), family.prompt([2], [5])
    inputs["pixel_attention_mask"] = torch.ones_like(inputs["pixel_attention_mask"])
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.5)):
        expected = model(**inputs).logits
        del inputs["pixel_attention_mask"]
        assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize("name", ["qwen2.5-vl", "qwen3-vl"])
def test_an_image_of_a_later_turn_that_the_model_would_number_like_text(name: str) -> None:
    """It would if given a mask over the conversation and no position IDs."""
    family = FAMILIES[name]
    model, whole = family.build(), family.prompt([2], [6])
    first = family.prompt([1], [6])["input_ids"].shape[1] - 3
    images, along = whole.images, {"input_ids", *family.token_types(whole["input_ids"])}

    def part(columns: slice, image: Any) -> dict[str, Any]:
        return {name: whole[name][:, columns] for name in along} | family.join([image], [1])

    mask = whole["attention_mask"]
    ids = family.position_ids(model, whole)
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.5)):
        turn = {"attention_mask": mask[:, :first], "use_cache": True}
        cache = {CACHE: model(**part(slice(0, first), images[0]), **turn)[CACHE]}
        later = part(slice(first, None), images[1]) | {"attention_mask": mask}
        with pytest.raises(PruningError, match=r"cannot number the visual tokens of a later turn .* Pass position_ids"):
            model(**later, **cache)
        assert torch.isfinite(model(**later, **cache, position_ids=ids[..., first:]).logits).all()


def test_an_image_that_the_tower_refuses(llava: Any) -> None:
    """`generate` encodes images before it calls the model. The images of the next call are recorded anyway."""
    inputs = prompt([1])
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        with pytest.raises(ValueError, match="doesn't match model"):
            llava.generate(**{**inputs, "pixel_values": inputs["pixel_values"][..., :16]}, max_new_tokens=2)
        llava.generate(**inputs, max_new_tokens=2)
    assert handle.report.n_kept == 9


def test_a_cache_that_is_returned_out_of_sight(llava: Any) -> None:
    """The next call would continue it as if it held every token."""

    class Holder:
        """A container that the patch does not know."""

    def hide(module: Any, args: Any, output: Any) -> None:
        if output.get(CACHE) is not None:
            output["holder"], output[CACHE] = Holder(), None

    hook = llava.model.language_model.register_forward_hook(hide)  # before the patch's own
    try:
        with torch.no_grad(), tokenprune.patch(llava, FoPru()):
            with pytest.raises(PruningError, match=r"returns the cache .* does not know\. Pass use_cache=False"):
                llava(**prompt([1]), use_cache=True)
            llava(**prompt([1]), use_cache=False)
    finally:
        hook.remove()


TEXT = torch.tensor([[5, 6, 7]])


@dataclass(frozen=True)
class Asking(Grid):
    """Asks a model before it selects."""

    ask: Callable[[], Any] = lambda: None

    def select(self, tokens: VisualTokens) -> Selection:
        self.ask()
        return super().select(tokens)


@dataclass(frozen=True)
class AskingInTower(FlowCut):
    ask: Callable[[], Any] = lambda: None

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        self.ask()
        return super().select_in_tower(tokens)


@dataclass(frozen=True)
class AskingAtStage(FastV):
    layer: int = 1
    ask: Callable[[], Any] = lambda: None

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        self.ask()
        return super().select_at(stage, tokens)


@pytest.mark.parametrize("kind", [Asking, AskingInTower, AskingAtStage])
@pytest.mark.parametrize("answer", [True, False], ids=["generate", "forward"])
def test_a_strategy_that_calls_the_model_that_it_prunes(llava: Any, kind: Any, answer: bool) -> None:
    """The inner call would forget the images of the outer one, whose cache would then be numbered wrongly."""
    inputs = prompt([1])

    def call(model: Any) -> Any:
        return model.generate(**inputs, max_new_tokens=3, do_sample=False) if answer else model(**inputs).logits

    with torch.no_grad():
        other = copy.deepcopy(llava)
        with tokenprune.patch(llava, kind(keep=9, ask=lambda: other(input_ids=TEXT))):
            expected = call(llava)
        for ask in (llava, llava.model):
            with (
                tokenprune.patch(llava, kind(keep=9, ask=lambda ask=ask: ask(input_ids=TEXT))),
                pytest.raises(PruningError, match=r"called by its own strategy, or by a hook, .* call another model"),
            ):
                call(llava)
        with tokenprune.patch(llava, kind(keep=9)):
            assert torch.equal(call(llava), expected)


@pytest.mark.parametrize("kind", [Asking, AskingAtStage])
def test_a_strategy_that_calls_the_language_model_that_it_prunes(llava: Any, kind: Any) -> None:
    """The strategy would be asked again, without end, or its selection replaced."""

    def ask() -> None:
        llava.model.language_model(inputs_embeds=torch.zeros(1, 3, llava.config.text_config.hidden_size))

    with (
        torch.no_grad(),
        tokenprune.patch(llava, kind(keep=9, ask=ask)),
        pytest.raises(PruningError, match="called by its own strategy"),
    ):
        llava(**prompt([1]))


@pytest.mark.parametrize("part", ["model.vision_tower", "model.language_model.layers.1"])
def test_a_hook_that_calls_the_patched_model(llava: Any, part: str) -> None:
    def ask(*_: Any) -> None:
        hook.remove()
        llava(input_ids=TEXT)

    with torch.no_grad(), tokenprune.patch(llava, Grid(keep=9)):
        hook = llava.get_submodule(part).register_forward_pre_hook(ask)
        with pytest.raises(PruningError, match="called by its own strategy, or by a hook"):
            llava.generate(**prompt([1]), max_new_tokens=2)
        hook = llava.get_submodule(part).register_forward_pre_hook(ask)
        llava.generate(**prompt([0]), max_new_tokens=2)  # has no images to forget
        hook.remove()
        hook = llava.lm_head.register_forward_pre_hook(ask)
        llava.generate(**prompt([1]), max_new_tokens=2)  # the images are pruned already
