"""Patches are dropped between the layers of the vision tower: exactly, or not at all."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from engine.tower.test_before_layers import Every
from helpers.contract.oracle import as_reported, assert_close, dropped_columns
from helpers.families import FAMILIES, VERSION
from helpers.models.staged import DeepTower
from helpers.tiny import prompt, tiny_llava
from torch import Tensor

import tokenprune
from tokenprune import Grid, PruningError, Selection, SettingError, ToMe, UnsupportedError
from tokenprune.adapters import adapter_for
from tokenprune.strategy import TowerStrategy
from tokenprune.tokens import PatchTokens, TowerTokens, VisualTokens


@dataclass(frozen=True)
class Wandering(TowerStrategy):
    """Drops patches by the image's values, different numbers in each image, after the layers `at`."""

    at: tuple[int, ...] = (0, 2, 3)

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        return self.at

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        scores = tokens.values.abs().sum((0, 2))[-tokens.n_left :]
        assert tokens.attention.keys.shape[2] == tokens.values.shape[1]
        if tokens.scores is not None:
            scores = scores + tokens.scores
        more = int(1000 * scores[0]) % 5 if tokens.layer != self.at[-1] else 0
        target = self.tower_budget(tokens.n_visual, tokens.n_image)
        fraction = 0.8 if tokens.layer != self.at[-1] else 0.0
        return Selection.best(scores, min(tokens.n_left, max(target, int(fraction * tokens.n_left) - more)))

    def select(self, tokens: VisualTokens) -> Selection:
        left = tokens.kept_in_tower
        return Selection(left.kept, tokens.n_visual, left.scores)


def states_of(model: Any, pixels: Tensor) -> tuple[Tensor, ...]:
    """Return every hidden state of the tower, as the model gets them."""
    seen: list[tuple[Tensor, ...]] = []
    hook = model.model.vision_tower.register_forward_hook(lambda module, args, out: seen.append(out.hidden_states))
    with torch.no_grad():
        model.model.get_image_features(pixels, output_hidden_states=True)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2"])
def test_dropping_in_the_tower_equals_masking_there(tower: str, attention: str) -> None:
    """Checks every hidden state of the tower at every surviving place, and the model's logits."""
    family = DeepTower(tower)
    model, inputs = family.build(attention), prompt([2, 1])
    if VERSION < (5, 24) and adapter_for(model).tower_layers is None:
        pytest.skip("refused: DINOv2's layers take no mask in this transformers")
    n_prefix = adapter_for(model).tower.n_prefix
    with torch.no_grad(), tokenprune.patch(model, Wandering(keep=7)) as handle:
        logits, narrowed = model(**inputs).logits, states_of(model, inputs["pixel_values"])
    images = handle.report.images
    assert len({tuple(len(stage.kept) for stage in image.in_tower) for image in images}) > 1
    dropped = dropped_columns(inputs["input_ids"], [handle.report])
    with as_reported(model, inputs["input_ids"], [handle.report]):
        expected = family.oracle(model, inputs, dropped)
        masked = states_of(model, inputs["pixel_values"])
    for row, left in enumerate((inputs["attention_mask"].bool() & ~dropped).sum(1).tolist()):
        real = inputs["attention_mask"][row].bool() & ~dropped[row]
        assert_close(logits[row, -left:], expected[row, real])
    whole = states_of(model, inputs["pixel_values"])
    for number, (ours, theirs, unpruned) in enumerate(zip(narrowed, masked, whole, strict=True)):
        assert ours.shape == unpruned.shape
        for tile, image in enumerate(images):
            stages = [stage.kept for stage in image.in_tower if stage.layer < number]  # on entry to layer number - 1
            kept = stages[-1] if stages else torch.arange(36)
            assert_close(ours[tile, n_prefix + kept], theirs[tile, n_prefix + kept])
            gone = torch.ones(36).bool().index_fill(0, kept, False)
            assert not ours[tile, n_prefix:][gone].any()
            if number >= 3:  # so that masking matters
                assert (theirs - unpruned)[tile, n_prefix + kept].abs().max() > 1e-2


def checkpointing(model: Any) -> Any:
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    return model


@pytest.mark.parametrize("made", [lambda model: model, checkpointing], ids=["", "checkpointing"])
def test_gradients_are_those_of_the_masked_tower(made: Any) -> None:
    family = DeepTower()
    model, inputs = family.build(), prompt([1])
    layer: Any = adapter_for(model).tower.layers(model.model.vision_tower)[0]
    if made is checkpointing and type(layer).__call__ is not torch.nn.Module.__call__:
        pytest.skip("refused: older transformers")
    model = made(model.train())
    check_gradients(family, model, inputs, Wandering(keep=7), 1e-3)


def check_gradients(
    family: Any, model: Any, inputs: dict[str, Any], strategy: tokenprune.Strategy, least: float
) -> None:
    """Check that the gradients of the pixels, one of which exceeds `least`, equal those of masking what was dropped."""
    pixels = inputs["pixel_values"].clone().requires_grad_()
    with tokenprune.patch(model, strategy) as handle:
        model(**{**inputs, "pixel_values": pixels}).logits[:, -1].logsumexp(-1).sum().backward()
    dropped = dropped_columns(inputs["input_ids"], [handle.report])
    model.eval()
    twin = inputs["pixel_values"].clone().requires_grad_()
    with as_reported(model, inputs["input_ids"], [handle.report]):
        given = {**inputs, "attention_mask": family.mask(inputs, dropped), "pixel_values": twin}
        ids = family.position_ids(model, inputs)
        model(**given, position_ids=ids, use_cache=False).logits[:, -1].logsumexp(-1).sum().backward()
    assert pixels.grad.abs().max() > least
    assert_close(pixels.grad, twin.grad)


# Refusals.


@pytest.mark.parametrize("layer", [0, 1, -4, [-2, -3]])  # of three layers: nothing precedes, or several are read
def test_feature_layers_that_are_refused(layer: Any) -> None:
    model = tiny_llava(vision_feature_layer=layer)
    with pytest.raises(UnsupportedError, match="one feature layer, not among the first"):
        tokenprune.patch(model, Wandering(at=(0,)))


def test_attention_kernels_without_masks_are_refused() -> None:
    model = tiny_llava()
    model.model.vision_tower.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UnsupportedError, match="eager or sdpa attention"):
        tokenprune.patch(model, Wandering(at=(0,)))


@pytest.mark.parametrize("case", ["llava-clip", "llava-pixtral"])
def test_attention_kernels_without_masks_that_come_after_the_patch(case: str) -> None:
    model, inputs = FAMILIES[case].build(), FAMILIES[case].prompt([1])
    with tokenprune.patch(model, ToMe(keep_ratio=0.3)):
        model.model.vision_tower.config._attn_implementation = "flash_attention_2"
        with pytest.raises(PruningError, match=r"switched to 'flash_attention_2' after patch\(\)"):
            model(**inputs)


@pytest.mark.parametrize("at", [(1,), (-1,), (0, 2)])
def test_layers_that_do_not_come_before_the_features(at: tuple[int, ...]) -> None:
    with pytest.raises(SettingError, match=r"tower_layers returned .*; in this tower, .* after 1 layers, counted 0..0"):
        tokenprune.patch(tiny_llava(), Wandering(at=at))


@dataclass(frozen=True)
class Another(Wandering):
    """Keeps tokens that it has dropped in the tower."""

    def select(self, tokens: VisualTokens) -> Selection:
        gone = torch.ones(tokens.n_visual).bool().index_fill(0, tokens.kept_in_tower.kept, False).nonzero()[:, 0]
        return Selection(gone[:2], tokens.n_visual)


@dataclass(frozen=True)
class AnotherBefore(Every):
    def select(self, tokens: VisualTokens) -> Selection:
        return Selection(tokens.kept_before_tower.kept[:2] + 1, tokens.n_visual)


@dataclass(frozen=True)
class More(Wandering):
    """Selects over more tokens than there are."""

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        return Selection.all(tokens.n_left + 1, tokens.left.device)


@dataclass(frozen=True)
class MoreBefore(Every):
    def select_patches(self, tokens: PatchTokens) -> Selection:
        return Selection.all(tokens.n_visual + 1, tokens.pixels.device)


@pytest.mark.parametrize(
    ("case", "strategy", "message"),
    [
        ("llava-clip", Another(keep=7, at=(0,)), r"Another.select kept visual tokens that were dropped in the tower"),
        ("qwen2-vl", AnotherBefore(), "kept visual tokens that were dropped in the tower or before it"),
        ("llava-clip", More(at=(0,)), "Selection over the 36 visual tokens that are left"),
        ("qwen2-vl", MoreBefore(), "Selection over 16 visual tokens"),
    ],
)
def test_selections_that_cannot_be(case: str, strategy: tokenprune.Strategy, message: str) -> None:
    model = FAMILIES[case].build()
    with tokenprune.patch(model, strategy), pytest.raises(PruningError, match=message):
        model(**FAMILIES[case].prompt([1]))


@dataclass(frozen=True)
class Reading(Grid):
    needs = frozenset({"kept_in_tower"})


@dataclass(frozen=True)
class ReadingBefore(Grid):
    needs = frozenset({"kept_before_tower"})


@dataclass(frozen=True)
class Both(Wandering):
    needs = frozenset({"kept_in_tower", "vision_attention"})


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Reading(), r"Reading.needs has kept_in_tower.*Derive it from .*TowerStrategy"),
        (Both(at=(0,)), "both kept_in_tower and vision_attention"),
        (Wandering(at=(0, 0)), r"tower_layers returned .* 0\.\.3\. Return some of them, in ascending order"),
        (Wandering(at=(1, 0)), r"tower_layers returned .* 0\.\.3\. Return some of them, in ascending order"),
    ],
)
def test_strategies_that_cannot_be(strategy: tokenprune.Strategy, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        tokenprune.patch(DeepTower().build(), strategy)


def test_only_patch_strategies_may_need_what_entered() -> None:
    with pytest.raises(
        SettingError, match=r"ReadingBefore.needs has kept_before_tower.*Derive it from .*PatchStrategy"
    ):
        tokenprune.patch(FAMILIES["qwen2-vl"].build(), ReadingBefore())


def test_checkpointing_that_runs_hooks_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in older transformers, which wraps the layer's call itself."""
    model = checkpointing(tiny_llava().train())
    layer: Any = type(adapter_for(model).tower.layers(model.model.vision_tower)[0])
    monkeypatch.setattr(layer, "__call__", lambda self, *args, **kwargs: super(layer, self).__call__(*args, **kwargs))
    with tokenprune.patch(model, Wandering(keep=7, at=(0,))):
        with pytest.raises(PruningError, match=r"again in the backward pass.*, or use a newer transformers"):
            model(**prompt([1]))
        model.model.vision_tower.eval()
        model(**prompt([1]))


def test_layers_that_were_replaced_after_patch() -> None:
    model = tiny_llava()
    with tokenprune.patch(model, Wandering(keep=7, at=(0,))):
        layer: Any = adapter_for(model).tower.layers(model.model.vision_tower)[0]
        layer.self_attn.v_proj = copy.deepcopy(layer.self_attn.v_proj)
        with pytest.raises(PruningError, match="replaced after patch"):
            model(**prompt([1]))
