"""After pruning between the tower's layers, a projector that maps every patch by itself gets only those that are
left."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import torch
from engine.modes.test_training import assert_same_gradients, given, labels_of
from helpers.contract.oracle import assert_close
from helpers.families import FAMILIES
from helpers.families.llava import VIP_LAYERS, VipLlava
from helpers.tiny import prompt, tiny_llava
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import tokenprune
from tokenprune import FlowCut, Selection, ToMe
from tokenprune.strategy import TowerStrategy
from tokenprune.tokens import TowerTokens, VisualTokens


@dataclass(frozen=True)
class Uneven(TowerStrategy):
    """Drops the first patches of each of three tiles; in turn so many."""

    dropped: tuple[int, int, int] = (20, 24, 22)
    tiles: Iterator[int] = field(default_factory=count)

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        return (0,)

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        first = self.dropped[next(self.tiles) % 3]
        return Selection(torch.arange(first, tokens.n_visual), tokens.n_visual)

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection(tokens.kept_in_tower.kept, tokens.n_visual)


class OneLayer(VipLlava):
    """A ViP-LLaVA whose projector gets one layer of the tower."""

    def config(self) -> Any:
        config = super().config()
        setattr(config, VIP_LAYERS, -2)
        return config


class Mixing(nn.Module):
    """Projects the mean of a patch and its neighbour."""

    def __init__(self, projector: nn.Module) -> None:
        super().__init__()
        self.projector = projector

    def forward(self, image_features: Tensor) -> Tensor:
        return self.projector((image_features + image_features.roll(1, 1)) / 2)


@dataclass
class Seen:
    """What a projector is given, the tiles and tokens that its first layer gets, and what the model makes of it."""

    given: Tensor
    rows: tuple[int, ...]
    features: Tensor


def seen_of(model: Any, pixels: Tensor) -> Seen:
    given: list[Tensor] = []
    rows: list[tuple[int, ...]] = []
    projector = model.model.multi_modal_projector
    inside = next(module for module in projector.modules() if isinstance(module, (nn.Linear, nn.LayerNorm)))
    hooks = [
        projector.register_forward_pre_hook(lambda module, args: given.append(args[0]), prepend=True),
        inside.register_forward_pre_hook(lambda module, args: rows.append(tuple(args[0].shape[:-1]))),
    ]
    with torch.no_grad():
        output = model.model.get_image_features(pixels, return_dict=True).pooler_output
    for hook in hooks:
        hook.remove()
    (only,), (shape,) = given, rows
    return Seen(only, shape, torch.stack(list(output)))


@pytest.mark.parametrize(
    ("strategy", "n_rows"),
    [(ToMe(keep_ratio=0.5), 18), (FlowCut(keep_ratio=0.25), 9), (Uneven(keep_ratio=0.5), 16)],
    ids=["tome", "flowcut", "uneven"],
)
@pytest.mark.parametrize("name", ["llava-clip", "llava-siglip", "paligemma", "vip-llava"])
def test_rows_of_dropped_patches_are_not_projected(name: str, strategy: TowerStrategy, n_rows: int) -> None:
    family = OneLayer(name) if name == "vip-llava" else FAMILIES[name]
    model, inputs = family.build(), family.prompt([2, 1])
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        model(**inputs)
        seen = seen_of(model, inputs["pixel_values"])
    left = [image.in_tower[-1].kept for image in handle.report.images]
    assert seen.rows == (3, n_rows) == (3, max(map(len, left)))
    with torch.no_grad():
        expected = model.model.multi_modal_projector(seen.given)
    assert seen.features.shape == expected.shape
    assert seen.features.dtype == expected.dtype
    for tile, kept in enumerate(left):
        assert_close(seen.features[tile, kept], expected[tile, kept])
        assert not seen.features[tile].index_fill(0, kept, 0.0).any()


def test_one_tile_of_which_everything_is_left() -> None:
    model, inputs = tiny_llava(), prompt([2, 1])
    with tokenprune.patch(model, Uneven(keep_ratio=1.0, dropped=(20, 0, 22))):
        seen = seen_of(model, inputs["pixel_values"])
    assert seen.rows == (3, 36)
    with torch.no_grad():
        assert torch.equal(seen.features, model.model.multi_modal_projector(seen.given))


@pytest.mark.parametrize("kind", ["mixing", "internvl"])
def test_a_projector_that_mixes_tokens_gets_all_rows(kind: str) -> None:
    family = FAMILIES["internvl" if kind == "internvl" else "llava-clip"]
    model, inputs = family.build(), family.prompt([2, 1])
    if kind == "mixing":
        model.model.multi_modal_projector = Mixing(model.model.multi_modal_projector)
    unpruned = seen_of(model, inputs["pixel_values"])
    with tokenprune.patch(model, ToMe(keep_ratio=0.25)):
        seen = seen_of(model, inputs["pixel_values"])
    assert not torch.equal(seen.given, unpruned.given)
    assert seen.rows == unpruned.rows
    with torch.no_grad():
        assert torch.equal(seen.features, model.model.multi_modal_projector(seen.given))


@pytest.mark.parametrize("first", ["patch", "wrap"])
@pytest.mark.parametrize(
    "strategy", [ToMe(keep_ratio=0.5), Uneven(keep_ratio=1.0, dropped=(20, 0, 22))], ids=["tome", "uneven"]
)
def test_gradients_of_a_projector_that_runs_again(strategy: TowerStrategy, first: str) -> None:
    """Outside a feature function, the hooks of one that was wrapped after the patch would not know what was dropped."""
    model, plain, inputs = tiny_llava().train(), tiny_llava().train(), prompt([1, 2])
    tokenprune.patch(plain, strategy)
    if first == "patch":
        tokenprune.patch(model, strategy)
    model.model.multi_modal_projector = checkpoint_wrapper(model.model.multi_modal_projector)
    if first == "wrap":
        tokenprune.patch(model, strategy)
    for one in (model, plain):
        one(**given(inputs), labels=labels_of(inputs), use_cache=False).loss.backward()
    assert_same_gradients(model, plain)


def test_calls_outside_a_feature_function_are_not_touched() -> None:
    model, inputs = tiny_llava(), prompt([1])
    projector = model.model.multi_modal_projector
    with torch.no_grad(), tokenprune.patch(model, ToMe(keep_ratio=0.25)):
        model(**inputs)
        features = torch.randn(1, 36, projector.linear_1.in_features)
        expected = projector.linear_2(projector.act(projector.linear_1(features)))
        assert torch.equal(projector(features), expected)
    assert not projector._forward_pre_hooks
    assert not projector._forward_hooks
