"""VFlowOpt's parts against the formulas, on tensors small enough to check by hand."""

from dataclasses import replace
from math import log

import pytest
import torch
from helpers.tokens.scored import scored
from scipy.stats import entropy
from torch import Tensor

from tokenprune import Selection, UnsupportedError
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.strategies.shared.importance import anchor_mask, context_relevance, importance_map, patch_entropy
from tokenprune.strategies.shared.recycling import recycle_by_cell
from tokenprune.tokens import Layout, VisionAttention, VisualTokens


def attention_of(n_tiles: int = 1, side: int = 4, n_prefix: int = 1, seed: int = 0) -> VisionAttention:
    generator = torch.Generator().manual_seed(seed)
    queries, keys = torch.randn(2, n_tiles, 2, side * side + n_prefix, 4, generator=generator) * 2
    return VisionAttention(queries, keys, 0.5, n_prefix, Layout(((n_tiles, side, side),), n_tiles))


def whole_maps(attention: VisionAttention) -> Tensor:
    """Return (tiles, patches, patches): the attention between patches, averaged over heads."""
    maps = (attention.queries @ attention.keys.transpose(-1, -2) * attention.scale).softmax(-1).mean(1)
    return maps[:, attention.n_prefix :, attention.n_prefix :]


def test_anchors_are_above_the_threshold() -> None:
    received = torch.tensor([[1.0, 2.0, 3.0, 6.0], [4.0, 4.0, 4.0, 4.0]])
    assert anchor_mask(received, 0.9).tolist() == [[False, False, True, True], [True] * 4]
    assert anchor_mask(received, 1.0).tolist() == [[False, False, False, True], [True, False, False, False]]
    assert anchor_mask(received, 1.5).tolist() == [[False, False, False, True], [True, False, False, False]]


@pytest.mark.parametrize("threshold", [0.5, 1.0, 1.2, 30.0])
@pytest.mark.parametrize("n_prefix", [0, 1])
def test_context_relevance_is_what_the_anchors_pay(threshold: float, n_prefix: int) -> None:
    attention = attention_of(2, n_prefix=n_prefix)
    maps = whole_maps(attention)
    for tile, relevance in enumerate(context_relevance(attention, threshold)):
        received = maps[tile].sum(0)
        chosen = (received > threshold * received.mean()).nonzero()[:, 0]
        chosen = chosen if len(chosen) else received.argmax()[None]
        torch.testing.assert_close(relevance, maps[tile][chosen].sum(0))


def test_patch_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.randint(0, 256, (2, 1, 12, 8), generator=generator)
    colors = (grey.float() / 256).expand(-1, 3, -1, -1)
    found = patch_entropy(colors, 6)
    for tile in range(2):
        for row in range(3):
            for column in range(2):
                levels = grey[tile, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten()
                expected = entropy(torch.bincount(levels, minlength=256).numpy())
                assert found[tile, 2 * row + column].item() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(patch_entropy(torch.full((1, 3, 8, 8), 1.0), 4), torch.zeros(1, 4))
    every = torch.arange(256).view(1, 1, 16, 16) / 255  # of eight bits, each is a level
    assert patch_entropy(every.expand(-1, 3, -1, -1), 1).item() == pytest.approx(log(256), abs=1e-5)


def test_patch_entropy_is_that_of_the_mean_of_the_channels() -> None:
    """If red and blue change, their mean does not; if green changes, it does."""
    red = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    green = torch.zeros(1, 8, 8).index_fill(2, torch.arange(4), 0.5)
    colors = torch.stack([red, green, 1 - red], 1)
    found = patch_entropy(colors, 1)
    assert found.item() == pytest.approx(log(2), abs=1e-5)  # half of the pixels are grey 1/2, the others 1/3


def test_padding_takes_no_part() -> None:
    """If the last row of a tile's patches is padding, the map is that of the other rows alone."""
    attention = attention_of()
    padded = replace(attention, real=(torch.arange(17) < 13)[None])
    parts = {name: getattr(attention, name)[:, :, :13] for name in ("queries", "keys")}
    alone = replace(attention, layout=Layout.raster((1, 3, 4)), **parts)
    colors = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for threshold in (0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.3, 1.5, 30.0):
        found = importance_map(padded, threshold, 0.5, colors)
        torch.testing.assert_close(found[:12], importance_map(alone, threshold, 0.5, colors[..., :12, :]))


@pytest.mark.parametrize(("size", "n_patches", "side"), [((384, 384), 729, 14), ((14, 14), 9, 4), ((18, 30), 8, 7)])
def test_pixels_beside_the_last_whole_patches_do_not_count(size: tuple[int, int], n_patches: int, side: int) -> None:
    """SigLIP's images of 384 pixels have 27 x 27 patches of 14, and 6 pixels more."""
    colors = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    whole = colors[..., : size[0] // side * side, : size[1] // side * side]
    found = patch_entropy(colors, n_patches)
    assert found.shape == (1, n_patches)
    assert torch.equal(found, patch_entropy(whole, n_patches))
    with pytest.raises(UnsupportedError, match=r"does not divide into 10000 of them\. Leave out alpha"):
        patch_entropy(colors[..., :20, :20], 10_000)


def test_the_map_adds_alpha_times_the_entropies() -> None:
    attention = attention_of(2)
    colors = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    plain, mixed = (importance_map(attention, 1.1, alpha, colors) for alpha in (0.0, 0.5))
    expected = plain.view(2, 16) + 0.5 * patch_entropy(colors, 16).softmax(1)
    torch.testing.assert_close(mixed.view(2, 16), expected)
    torch.testing.assert_close(plain, context_relevance(attention, 1.1).flatten())


def test_the_map_as_released() -> None:
    """The mean over the anchors, and entropies in bits: another order of patches, if entropies count."""
    attention, colors = attention_of(2), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    maps = whole_maps(attention)
    means = []
    for tile in range(2):
        received = maps[tile].sum(0)
        means.append(maps[tile][received > 1.1 * received.mean()].mean(0))
    bits = patch_entropy(colors, 16) / torch.tensor(2.0).log()
    found = importance_map(attention, 1.1, 0.5, colors, as_released=True)
    torch.testing.assert_close(found.view(2, 16), torch.stack(means) + 0.5 * bits.softmax(1))
    colors[:, :, :4] = 0  # the upper half is flat
    statistics = {"vision_attention": attention_of(1), "colors": colors[:1]}
    tokens = VisualTokens(torch.randn(16, 8), Layout.raster((1, 4, 4)), 0, statistics)
    paper, released = (VFlowOpt(keep_ratio=0.5, threshold=0.0, alpha=1.0, as_released=flag) for flag in (False, True))
    assert not torch.equal(*(strategy.select(tokens).kept for strategy in (paper, released)))


@pytest.mark.parametrize(("n_tiles", "same"), [(1, True), (3, False)])
def test_without_entropies_the_released_map_ranks_alike_within_a_tile(n_tiles: int, same: bool) -> None:
    attention = attention_of(n_tiles)
    tokens = VisualTokens(torch.randn(16 * n_tiles, 8), attention.layout, 0, {"vision_attention": attention})
    paper, released = (VFlowOpt(threshold=2.0, recycle=False, as_released=flag) for flag in (False, True))
    assert torch.equal(*(strategy.select(tokens).kept for strategy in (paper, released))) == same


def test_the_map_is_carried_like_the_features() -> None:
    attention = attention_of(1)
    merged = attention.with_layout(Layout.squares(4, 4, 2))
    patches = context_relevance(attention, 1.0).view(2, 2, 2, 2)
    torch.testing.assert_close(importance_map(merged, 1.0), patches.mean((1, 3)).flatten())


def test_recycling_by_hand() -> None:
    scores = torch.tensor([0.9, 0.1, 0.3, 0.2, 0.8, 0.7])
    cells = torch.tensor([0, 0, 0, 1, 1, 1])
    # Three kept: two cells lose tokens whatever stays, so one token stays whole.
    selection = recycle_by_cell(scores, cells, 2, 3)
    assert selection.kept.tolist() == [0, 2, 4]
    features = torch.eye(6)
    new = selection.merged.apply(features, selection.kept)
    torch.testing.assert_close(new[0], features[0])
    torch.testing.assert_close(new[1], (0.3 * features[2] + 0.1 * features[1]) / 0.4)
    torch.testing.assert_close(new[2], (0.2 * features[3] + 0.8 * features[4] + 0.7 * features[5]) / 1.7)
    # Fewer than cells: the cell with the best token lives on.
    one = recycle_by_cell(scores, cells, 2, 1)
    assert one.kept.tolist() == [0]
    assert sorted(one.merged.sources.tolist()) == [0, 1, 2]


def test_scores_of_zero_weigh_the_same() -> None:
    merged = recycle_by_cell(torch.zeros(4), torch.zeros(4).long(), 1, 1).merged
    assert merged.weights.tolist() == [0.25] * 4


def test_newline_tokens_are_kept_or_dropped_but_not_merged() -> None:
    """One cell of three patches and a newline token (3), and one of a newline token alone."""
    scores = torch.tensor([0.9, 0.1, 0.3, 0.8, 0.2])
    cells, newline = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([False, False, False, True, True])
    for n_kept, expected in ((1, [0]), (2, [0, 2]), (3, [0, 2, 3]), (4, [0, 1, 2, 3])):
        selection = recycle_by_cell(scores, cells, 2, n_kept, newline)
        assert selection.kept.tolist() == expected
        assert not newline[selection.merged.sources].any()
        assert not newline[selection.kept[selection.merged.targets]].any()


def test_never_nan() -> None:
    """Even for an image without structure, and for a threshold that no patch reaches."""
    flat = VisionAttention(torch.zeros(1, 2, 17, 4), torch.zeros(1, 2, 17, 4), 0.5, 1, Layout.raster((1, 4, 4)))
    tokens = VisualTokens(
        torch.ones(16, 8), flat.layout, 0, {"vision_attention": flat, "colors": torch.zeros(1, 3, 8, 8)}
    )
    for alpha in (-1.0, 0.0, 1.0):
        selection = VFlowOpt(keep_ratio=0.25, threshold=50.0, alpha=alpha).select(tokens)
        assert isinstance(selection, Selection)
        assert selection.scores is not None
        assert selection.merged.apply(tokens.features, selection.kept).isfinite().all()


def test_without_parts() -> None:
    tokens = VisualTokens(torch.randn(16, 8), Layout.raster((1, 4, 4)), 0, {"vision_attention": attention_of()})
    plain = VFlowOpt(keep_ratio=0.25, recycle=False, progressive=False)
    assert plain.stages(28) == ()
    assert plain.select(tokens).merged is None
    assert len(plain.select(tokens).kept) == 4
    assert len(VFlowOpt(keep_ratio=0.25).select(tokens).kept) == 5  # 1.15 times as many enter


def test_cells_by_default_are_half_of_the_largest_grid_s_shorter_side() -> None:
    """Of 4 x 6, behind 2 x 2: 2. Of 5 x 7: 2.5."""
    generator, sides = torch.Generator().manual_seed(0), (None, 1.0, 1.5, 2.0, 2.5, 3.0)
    for layout, side in ((Layout(((1, 2, 2), (1, 4, 6))), 2.0), (Layout.raster((1, 5, 7)), 2.5)):
        tokens = scored(torch.rand(layout.n_visual, generator=generator).tolist(), layout)
        kept = {cell: VFlowOpt(keep_ratio=0.5, cell=cell).select(tokens).kept.tolist() for cell in sides}
        assert kept[None] == kept[side]
        assert all(kept[side] != kept[other] for other in sides[1:] if other != side)


def test_newline_tokens_are_not_recycled() -> None:
    """Whether they are kept or dropped. A row's best token is its newline token's score, too."""
    layout = Layout(
        ((1, 4, 5),),
        to_tokens=lambda values: torch.cat([rows := values.view(4, 4), rows.amax(1, keepdim=True)], 1).flatten(),
        newlines=(torch.arange(20) + 1) % 5 == 0,
    )
    attention = replace(attention_of(n_prefix=0), layout=layout)
    tokens = VisualTokens(torch.randn(20, 8), layout, 0, {"vision_attention": attention})
    dropped = 0
    for ratio in (0.1, 0.2, 0.4, 0.6):
        selection = VFlowOpt(keep_ratio=ratio, cell=2.0).select(tokens)
        assert set(selection.merged.sources.tolist()).isdisjoint({4, 9, 14, 19})
        dropped += 4 - sum(place % 5 == 4 for place in selection.kept.tolist())
    assert dropped > 0
