"""FlowCut against numbers computed by hand."""

from dataclasses import replace
from math import exp, log, sqrt

import torch
from helpers.contract.oracle import assert_close
from helpers.models.staged import DeepTower
from helpers.tiny import prompt
from helpers.tokens.by_hand import tokens_of
from torch import Tensor

import tokenprune
from tokenprune import FlowCut
from tokenprune.strategies.in_tower.flowcut import information_flow, n_dropped
from tokenprune.tokens import KeptInTower, Layout, TowerTokens, VisionAttention, VisualTokens

# Two heads of width 1: CLS, and three patches. Products with the CLS token's: 1, 0, 1 and log 2 in the first head, all
# 0 in the second.
VALUES = [[[1.0], [0.0], [1.0], [log(2)]], [[0.0], [2.0], [-3.0], [4.0]]]
ATTENTION = [0.4, 0.2, 0.2]  # the CLS token keeps a fifth to itself


def seen(scores: list[float] | None = None, n_later_layers: int = 0, n_patches: int = 3) -> TowerTokens:
    attention = tokens_of([0.4, 0.2, 0.4], [[1.0, 0.0]] * 3, [[0.0]] * 3).vision_attention
    before = None if scores is None else torch.tensor(scores)
    return TowerTokens(
        4, n_later_layers, attention, torch.tensor(VALUES), torch.arange(3), n_patches, n_patches, before
    )


def test_information_flow_by_hand() -> None:
    e = exp(1)
    alike = [(1 / (2 * e + 3) + 1 / 4) / 2, (e / (2 * e + 3) + 1 / 4) / 2, (2 / (2 * e + 3) + 1 / 4) / 2]
    sizes = [(0 + 2) / 2, abs(1 - 3) / 2, (log(2) + 4) / 2]
    relation = [0.5, 0.25, 0.25]
    expected = [(r + a / sum(alike)) * s for r, a, s in zip(relation, alike, sizes, strict=True)]
    torch.testing.assert_close(information_flow(torch.tensor(ATTENTION), torch.tensor(VALUES)), torch.tensor(expected))


def test_products_are_not_scaled_and_sizes_are_sums() -> None:
    """Of vectors of width 4, the products with the CLS token's are log 4 and 0, not halves of them, and the sizes 3 and
    2, where their lengths are 1.7 and 2."""
    values = torch.tensor([[[log(4), 0.0, 0, 0], [1.0, 1, 1, 0], [0.0, 2, 0, 0]]])
    flow = information_flow(torch.tensor([0.5, 0.5]), values)
    torch.testing.assert_close(flow, torch.tensor([(1 / 2 + 4 / 5) * 3, (1 / 2 + 1 / 5) * 2]))


def test_how_many_are_dropped() -> None:
    """Attention that halves from patch to patch has an entropy of 1.75 log 2 over four."""
    halves = torch.tensor([0.5, 0.25, 0.125, 0.125]).repeat_interleave(4) / 4
    share = 1 - ((1.75 * log(2) + log(4)) / log(16)) ** 2
    assert n_dropped(halves, 4, 1) == round(12 * share) == 1
    assert n_dropped(halves, 4, 0) == 12
    even, one = torch.full((16,), 1 / 16), torch.eye(16)[0]
    assert n_dropped(even, 4, 2) == 0
    assert n_dropped(even / 2, 4, 2) == 0  # the CLS token keeps the other half to itself
    assert n_dropped(one, 4, 9) == round(12 / sqrt(9))


def test_importance_is_averaged_with_what_it_was() -> None:
    now = information_flow(torch.tensor([0.4, 0.2, 0.4]), torch.tensor(VALUES))
    strategy = FlowCut(keep=1)
    first, later = strategy.select_in_tower(seen()), strategy.select_in_tower(seen([9.0, 0.0, 0.0]))
    torch.testing.assert_close(first.scores, now)
    torch.testing.assert_close(later.scores, (now + torch.tensor([9.0, 0.0, 0.0])) / 2)
    assert (first.kept.tolist(), later.kept.tolist()) == ([2], [0])


def test_after_every_other_layer_nothing_is_dropped() -> None:
    selection = FlowCut(keep=1).select_in_tower(seen(n_later_layers=3))
    assert selection.kept.tolist() == [0, 1, 2]
    assert selection.scores.unique().numel() == 3


def test_what_is_few_enough_stays() -> None:
    """A third of nine patches, of which three are left."""
    selection = FlowCut(keep_ratio=1 / 3).select_in_tower(seen([3.0, 1.0, 2.0], n_patches=9))
    assert selection.kept.tolist() == [0, 1, 2]
    assert selection.scores.tolist() == [3.0, 1.0, 2.0]


def test_a_tile_of_which_nothing_is_dropped_is_scored_for_the_comparison_with_others() -> None:
    alone, tile = seen(), replace(seen(), n_image=9)
    assert FlowCut(keep=3).select_in_tower(alone).scores is None
    selection = FlowCut(keep=9).select_in_tower(tile)
    assert selection.kept.tolist() == [0, 1, 2]
    torch.testing.assert_close(selection.scores, information_flow(torch.tensor([0.4, 0.2, 0.4]), torch.tensor(VALUES)))


def test_the_survivors_are_kept() -> None:
    left = KeptInTower(torch.tensor([1, 3]), 4, torch.tensor([0.0, 2.0, 1.0, 3.0]), ())
    tokens = VisualTokens(torch.zeros(4, 2), Layout.raster((1, 2, 2)), 0, {"kept_in_tower": left})
    selection = FlowCut(keep=2).select(tokens)
    assert selection.kept.tolist() == [1, 3]
    assert selection.scores is left.scores


def test_it_narrows_step_by_step_and_each_image_in_its_own_way() -> None:
    model, inputs = DeepTower(n_layers=9).build(), prompt([2, 1])
    with torch.no_grad(), tokenprune.patch(model, FlowCut(keep=9)) as handle:
        model(**inputs)
    images = handle.report.images
    series = [[(stage.layer, len(stage.kept)) for stage in image.in_tower] for image in images]
    for image, one in zip(images, series, strict=True):
        assert set(one) <= {(layer, count) for layer in (1, 3, 5, 7) for count in range(9, 36)}
        assert len(one) > 1
        assert one[-1] == (7, 9)
        assert torch.equal(image.kept, image.in_tower[-1].kept)
        assert image.scores.shape == (36,)
        for before, after in zip(image.in_tower, image.in_tower[1:], strict=False):
            assert set(after.kept.tolist()) < set(before.kept.tolist())
    assert len({tuple(one) for one in series}) > 1  # so the batch was padded in the tower


def test_images_are_narrowed_as_if_each_was_alone() -> None:
    model, inputs = DeepTower(n_layers=9).build(), prompt([2, 1])
    features: list[Tensor] = []
    hook = model.model.multi_modal_projector.register_forward_pre_hook(lambda module, args: features.append(args[0]))
    with torch.no_grad(), tokenprune.patch(model, FlowCut(keep=9)) as handle:
        model(**inputs)
        images = handle.report.images
        for image in inputs["pixel_values"].split(1):
            model.get_image_features(image)
    hook.remove()
    together, *alone = features
    assert_close(together, torch.cat(alone))
    assert all(bool((one.abs().sum(-1) > 0).sum() == 9) for one in together)
    assert len(images) == 3


def test_without_a_cls_token_the_mean_stands_for_it() -> None:
    queries = torch.tensor([[0.0], [0.0], [log(3)]])[None, None]
    attention = VisionAttention(
        queries, torch.tensor([[0.0], [1.0], [0.0]])[None, None], 1.0, 0, Layout.raster((1, 1, 3))
    )
    values = torch.tensor([[[1.0], [3.0], [-1.0]]])  # the mean is 1
    done = FlowCut(keep=1).select_in_tower(TowerTokens(0, 0, attention, values, torch.arange(3), 3, 3))
    received = [(1 / 3 + 1 / 3 + weight) / 3 for weight in (1 / 5, 3 / 5, 1 / 5)]
    alike = [exp(1), exp(3), exp(-1)]  # of products with the mean
    expected = [(r + a / sum(alike)) * size for r, a, size in zip(received, alike, (1, 3, 1), strict=True)]
    torch.testing.assert_close(done.scores, torch.tensor(expected))
    assert done.kept.tolist() == [1]


def test_tiles_of_which_some_were_not_scored_or_not_whole() -> None:
    first = KeptInTower(torch.tensor([1]), 3, torch.zeros(3), entered=torch.tensor([1, 2]))
    both = KeptInTower.concat([first, KeptInTower(torch.tensor([0, 1]), 2)])
    assert (both.kept.tolist(), both.n_visual) == ([1, 3, 4], 5)
    assert both.left_at(0).tolist() == [1, 2, 3, 4]
    assert both.scores is None
