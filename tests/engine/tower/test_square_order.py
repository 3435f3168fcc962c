"""Orders of patches in squares and tiles, and attention that is read in rows."""

from dataclasses import dataclass, field

import pytest
import torch
from engine.tower.test_rows_and_squares import NAMES, model_of, prompt_of
from helpers.families import FAMILIES
from torch import Tensor

import tokenprune
from tokenprune import Selection
from tokenprune.engine.tower.tiles import Tile
from tokenprune.selection import Merge
from tokenprune.strategy import AttentionStrategy, TowerStrategy
from tokenprune.tokens import TowerTokens, VisualTokens

SIDE = 6  # patches
#: The keys and values of every tile.
seen: list[tuple[Tensor, Tensor]] = []


@dataclass(frozen=True)
class Reading(TowerStrategy):
    """Drops nothing, and appends what it reads to `seen`."""

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        return (0,)

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        seen.append((tokens.keys, tokens.values))
        return Selection.all(tokens.n_left, tokens.left.device)

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection.all(tokens.n_visual, tokens.features.device)


def test_keys_and_values_are_those_of_the_tokens_own_patches() -> None:
    model, inputs = FAMILIES["internvl"].build(), FAMILIES["internvl"].prompt([1])
    attention = model.model.vision_tower.encoder.layer[0].attention
    projected: dict[str, Tensor] = {}
    for name in ("k_proj", "v_proj"):
        module = getattr(attention, name)
        module.register_forward_hook(lambda module, args, output, name=name: projected.update({name: output}))
    seen.clear()
    with torch.no_grad(), tokenprune.patch(model, Reading(keep_ratio=1.0)):
        model(**inputs)
    half, n_heads = SIDE // 2, model.config.vision_config.num_attention_heads
    assert len(seen) == len(projected["v_proj"])
    for tile, (keys, values) in enumerate(seen):
        k, v = (
            part[tile, 1:].view(half, 2, half, 2, -1).transpose(1, 2).reshape(half**2, 4, n_heads, -1)
            for part in (projected["k_proj"], projected["v_proj"])
        )
        torch.testing.assert_close(keys, k.mean(2).flatten(1))
        torch.testing.assert_close(values[:, 1:], v.mean(1).transpose(0, 1))
        assert torch.equal(values[:, 0], projected["v_proj"][tile, 0].view(n_heads, -1))  # CLS


# What is known about a tile from one selection to the next.


CPU = torch.device("cpu")


def test_scores_follow_the_tokens_that_are_left() -> None:
    """Checks the strategy's next input, and the last score of every token."""
    tile = Tile(4, 4, CPU)
    tile.keep(Selection(torch.tensor([0, 2, 3]), 4, torch.tensor([5.0, 1.0, 4.0, 3.0])), 1)
    assert tile.scores.tolist() == [5.0, 4.0, 3.0]
    tile.keep(Selection(torch.tensor([1, 2]), 3, torch.tensor([6.0, 7.0, 8.0])), 2)
    assert tile.scores.tolist() == [7.0, 8.0]
    left = tile.outcome()
    assert left.scores.tolist() == [6.0, 1.0, 7.0, 8.0]
    assert left.kept.tolist() == [2, 3]
    assert [(stage.layer, stage.kept.tolist()) for stage in left.stages] == [(1, [0, 2, 3]), (2, [2, 3])]


def test_scores_that_came_too_late_are_not_those_of_all() -> None:
    tile = Tile(4, 4, CPU)
    tile.keep(Selection(torch.tensor([0, 2, 3]), 4), 1)
    tile.keep(Selection(torch.tensor([1, 2]), 3, torch.tensor([6.0, 7.0, 8.0])), 2)
    assert tile.scores.tolist() == [7.0, 8.0]
    assert tile.outcome().scores is None


def test_sizes_add_up() -> None:
    """Token 1 is merged into 0, then everything left in the tile into its last token."""
    tile = Tile(3, 3, CPU)
    pair, one = torch.tensor([0, 0]), torch.ones(2)
    tile.keep(Selection(torch.tensor([0, 2]), 3, merged=Merge(pair, torch.tensor([0, 1]), one / 2)), 1)
    assert tile.sizes.tolist() == [2.0, 1.0]
    tile.keep(Selection(torch.tensor([1]), 2, merged=Merge(pair, torch.tensor([0, 1]), one / 2)), 2)
    assert (tile.sizes.tolist(), tile.left.tolist()) == ([3.0], [2])
    merged = tile.stages[-1].merged
    assert merged.sources.tolist() == [0, 2]  # counted within the tile


# If all images are one row of patches, a TowerStrategy reads the same attention of a layer as an AttentionStrategy
# does after the tower.


@dataclass(frozen=True)
class InTower(TowerStrategy):
    """Keeps all tokens, and records what it reads from every layer, image by image."""

    read: dict[int, list[Tensor]] = field(default_factory=dict)

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        return tuple(range(n_layers))

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        self.read.setdefault(tokens.layer, []).append(tokens.attention.received())
        return Selection.all(tokens.n_left, tokens.left.device)

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection.all(tokens.n_visual, tokens.features.device)


@dataclass(frozen=True)
class AfterTower(AttentionStrategy):
    """Records the same for one layer."""

    read: list[Tensor] = field(default_factory=list)

    def select(self, tokens: VisualTokens) -> Selection:
        self.read.append(tokens.vision_attention.received())
        return Selection.all(tokens.n_visual, tokens.features.device)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_reads_alike_between_the_layers_and_after_the_tower(name: str) -> None:
    model, inputs = model_of(name), prompt_of(name, "image")
    between = InTower(keep_ratio=1.0)
    with torch.no_grad(), tokenprune.patch(model, between):
        model(**inputs)
    assert between.read
    for layer, found in between.read.items():
        after = AfterTower(keep_ratio=1.0, layer=layer)
        with torch.no_grad(), tokenprune.patch(model, after):
            model(**inputs)
        torch.testing.assert_close(torch.cat(found), torch.cat(after.read), rtol=0, atol=1e-6)
        uniform = torch.cat([one.mean().expand(len(one)) for one in after.read])
        assert (torch.cat(after.read) - uniform).abs().max() > 1e-5
