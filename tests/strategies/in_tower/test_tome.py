"""ToMe: how many tokens each layer merges, which, and into what, in all towers and in plain ones."""

from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close
from helpers.models.staged import DeepTower
from helpers.tiny import prompt
from helpers.tokens.by_hand import at
from torch import Tensor

import tokenprune
from tokenprune import ToMe
from tokenprune.strategies.in_tower.tome import matched, means, merge_groups, n_merged
from tokenprune.tokens import KeptInTower, Layout, TowerTokens, VisionAttention, VisualTokens

#: Angles of six patches. Every second one is matched with the nearest of the others.
ANGLES = at(0, 10, 52, 50, 95, 80)


def test_every_second_token_is_matched() -> None:
    """Without a CLS token, the first patch looks for a match. With one, which comes first, the first patch is a
    target."""
    left, places = matched(ANGLES, 2, 0)  # 0 -> 10: 10 degrees; 52 -> 50: 2; 95 -> 80: 15
    assert (left.tolist(), places.tolist()) == ([1, 3, 4, 5], [0, 0, 1, 1, 2, 3])
    left, places = matched(ANGLES, 2, 1)  # 10 -> 0: 10; 50 -> 52: 2; 80 -> 95: 15
    assert (left.tolist(), places.tolist()) == ([0, 2, 4, 5], [0, 0, 1, 1, 2, 3])
    assert matched(ANGLES, 2, 2)[0].tolist() == [1, 3, 4, 5]  # as without
    assert matched(ANGLES, 99, 0)[0].tolist() == [1, 3, 5]
    lengths = torch.tensor([[1.0], [9.0], [2.0], [0.1], [5.0], [0.2]])
    assert torch.equal(matched(lengths * ANGLES, 2, 0)[1], matched(ANGLES, 2, 0)[1])  # cosines


def test_a_cls_token_takes_part_in_the_counting() -> None:
    for n_prefix, expected in ((0, [1, 3, 4, 5]), (1, [0, 2, 4, 5])):
        keys = torch.cat([torch.ones(n_prefix, 2), ANGLES])[None, None]
        attention = VisionAttention(keys, keys, 1.0, n_prefix, Layout.raster((1, 1, 6)))
        done = ToMe(keep=4).select_in_tower(TowerTokens(0, 0, attention, keys[0], torch.arange(6), 6, 6))
        assert done.kept.tolist() == expected


def test_means_weigh_what_each_stands_for() -> None:
    sizes, places = torch.tensor([1.0, 3.0, 2.0, 1.0, 4.0]), torch.tensor([0, 0, 1, 1, 2])
    features = torch.tensor([[8.0], [4.0], [3.0], [9.0], [7.0]])
    found, totals = means(features, sizes, places, 3)
    assert found[:, 0].tolist() == [5.0, 5.0, 7.0]  # (8 + 3 * 4) / 4, (2 * 3 + 9) / 3
    assert totals.tolist() == [4.0, 3.0, 4.0]
    merge = merge_groups(sizes, places, 3)
    assert merge.sources.tolist() == [0, 1, 2, 3]  # the last one is as it was
    assert torch.equal(merge.apply(features, torch.tensor([1, 3, 4])), found)


@pytest.mark.parametrize(
    ("schedule", "counts"),
    [("constant", [5, 5, 5, 5]), ("decreasing", [10, 7, 3, 0])],  # 20 in parts of 3, 2, 1 and 0
)
def test_schedules(schedule: str, counts: list[int]) -> None:
    left, found = 20, []
    for n_later_layers in (3, 2, 1, 0):
        found.append(n_merged(left, n_later_layers, schedule))
        left -= found[-1]
    assert found == counts
    assert left == 0


def test_a_budget_beyond_one_matching() -> None:
    """Three rounds, 8 to 4 to 2 to 1, into the mean of all."""
    keys = torch.randn(1, 2, 8, 4, generator=torch.Generator().manual_seed(0))
    attention = VisionAttention(keys, keys, 0.5, 0, Layout.raster((1, 1, 8)))
    done = ToMe(keep=1).select_in_tower(TowerTokens(0, 0, attention, keys[0], torch.arange(8), 8, 8))
    assert len(done.kept) == 1
    values = torch.arange(8.0)[:, None]
    torch.testing.assert_close(done.merged.apply(values, done.kept), torch.tensor([[3.5]]))


def test_what_the_tiles_have_too_many_is_merged_by_features() -> None:
    """Left are 0, 1 and 3, of which 0 stands for three patches and is most like 1."""
    left = KeptInTower(torch.tensor([0, 1, 3]), 4, merged_from=torch.tensor([3.0, 1.0, 1.0]))
    features = torch.tensor([[1.0, 0.0], [3.0, 0.2], [9.0, 9.0], [0.0, 1.0]])
    tokens = VisualTokens(features, Layout.raster((1, 1, 4)), 0, {"kept_in_tower": left})
    selection = ToMe(keep=2).select(tokens)
    assert selection.kept.tolist() == [1, 3]
    expected = torch.tensor([[(3 * 1 + 3) / 4, 0.05], [0.0, 1.0]])
    torch.testing.assert_close(selection.merged.apply(features, selection.kept), expected)
    assert ToMe(keep=3).select(tokens).merged is None


def states_of(model: Any, pixels: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2"])
def test_a_token_for_k_patches_is_like_k_copies(tower: str) -> None:
    """In a tower without position embeddings, every patch occurs twice. Merging the copies changes nothing in any
    layer, because each merged token has twice the weight."""
    model = DeepTower(tower).build()
    vision = model.model.vision_tower
    for name, parameter in vision.named_parameters():
        if "position_embedding" in name:
            torch.nn.init.zeros_(parameter)
    pixels = prompt([1])["pixel_values"]
    pixels[..., 4:8] = pixels[..., :4]  # patches of 4 x 4 pixels: every second column repeats the one before
    pixels[..., 12:16] = pixels[..., 8:12]
    pixels[..., 20:24] = pixels[..., 16:20]
    whole = states_of(model, pixels)
    inputs = {**prompt([1]), "pixel_values": pixels}
    with torch.no_grad(), tokenprune.patch(model, ToMe(keep=18, schedule="decreasing")) as handle:
        merged = states_of(model, pixels)
        model(**inputs)
    (image,) = handle.report.images
    assert [len(stage.kept) for stage in image.in_tower][-1] == 18
    n_prefix = whole[0].shape[1] - 36
    for number, (ours, unpruned) in enumerate(zip(merged, whole, strict=True)):
        stages = [stage.kept for stage in image.in_tower if stage.layer < number]
        kept = stages[-1] if stages else torch.arange(36)
        assert_close(ours[0, n_prefix + kept], unpruned[0, n_prefix + kept])
        if n_prefix:
            assert_close(ours[0, :n_prefix], unpruned[0, :n_prefix])


# ToMe in Qwen2-VL's tower against a plain re-implementation, token by token: units of 2 x 2 patches, rotary
# positions, proportional attention.


DEPTH, EACH = 5, 4
