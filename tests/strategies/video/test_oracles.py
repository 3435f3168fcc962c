"""Strategies for videos against known results on a still clip, a cut, and similar frames."""

import warnings
from dataclasses import replace

import pytest
import torch
from helpers.tokens.scored import scored
from torch import Tensor

from tokenprune import EVS, STRATEGIES, VCAST, DyCokeTTM, FastVID, VidCom2
from tokenprune.strategies.video.dycoke import window_of
from tokenprune.strategies.video.evs import FIRST
from tokenprune.strategies.video.vcast import curvature, outstanding
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

VIDEO = [name for name, cls in STRATEGIES.items() if "frames" in cls().needs]
N_PLACES, WIDTH = 20, 16


def clip(frames: Tensor, seed: int = 0) -> VisualTokens:
    """Return a video with these features, (frames, places, width), and random attention."""
    n_frames, n_places, _ = frames.shape
    layout = Layout(((n_frames, 4, n_places // 4),), n_frames)
    generator = torch.Generator().manual_seed(seed)
    queries, keys = torch.randn(2, n_frames, 2, n_places, 4, generator=generator) * 2
    attention = VisionAttention(queries, keys, 0.5, 0, layout)
    return VisualTokens(frames.flatten(0, 1), layout, 0, {"vision_attention": attention})


def scene(seed: int) -> Tensor:
    return torch.randn(N_PLACES, WIDTH, generator=torch.Generator().manual_seed(seed))


def moving(n_frames: int, change: float = 0.3, seed: int = 1) -> Tensor:
    """Return frames that each differ a little from the one before."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(n_frames, N_PLACES, WIDTH, generator=generator) * change
    return scene(0) + steps.cumsum(0)


def per_frame(kept: Tensor, n_frames: int) -> list[int]:
    return (kept // N_PLACES).bincount(minlength=n_frames).tolist()


@pytest.mark.parametrize("keep_ratio", [0.01, 0.1, 0.125, 0.2, 0.25, 0.5, 0.9])
def test_evs_keeps_the_first_frame_of_a_still_clip_first(keep_ratio: float) -> None:
    tokens = clip(scene(0).expand(8, -1, -1))
    kept = EVS(keep_ratio=keep_ratio).select(tokens).kept
    n_first = min(len(kept), N_PLACES)
    assert per_frame(kept, 8)[0] == n_first
    assert len(kept) == round(keep_ratio * 160 + 1e-9)


def test_a_budget_below_one_frame_is_spread_over_the_first() -> None:
    for keep in range(1, N_PLACES):
        kept = EVS(keep=keep).select(clip(moving(4))).kept
        assert len(kept) == keep
        assert int(kept[-1]) < N_PLACES
        gaps = kept.diff()
        assert keep < 2 or gaps.max() - gaps.min() <= 1


def test_evs_keeps_the_frame_after_a_cut() -> None:
    frames = torch.cat([moving(3, 0.01), scene(9) + 0.01 * moving(5)])
    kept = per_frame(EVS(keep_ratio=0.25).select(clip(frames)).kept, 8)
    assert kept == [N_PLACES, 0, 0, N_PLACES, 0, 0, 0, 0]


def test_evs_scores_are_changes() -> None:
    frames = torch.zeros(2, 4, 2)
    frames[0] = torch.tensor([1.0, 0.0])
    frames[1] = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 1.0]])
    selection = EVS(keep=6).select(clip(frames))
    torch.testing.assert_close(selection.scores, torch.tensor([FIRST] * 4 + [0.0, 1.0, 2.0, 1 - 0.5**0.5]))
    assert selection.kept.tolist() == [0, 1, 2, 3, 5, 6]


@pytest.mark.parametrize("name", ["vidcom2", "vcast"])
@pytest.mark.parametrize("keep", [8, 40, 43, 80, 120, 159])
def test_equal_frames_get_equal_budgets(name: str, keep: int) -> None:
    """Up to what whole tokens allow."""
    kept = per_frame(STRATEGIES[name](keep=keep).select(clip(scene(0).expand(8, -1, -1))).kept, 8)
    assert sum(kept) == keep
    assert max(kept) - min(kept) <= 1


def test_the_frame_that_stands_out_keeps_more() -> None:
    frames = scene(0).expand(8, -1, -1).clone()
    frames[5] = scene(9)
    kept = per_frame(VidCom2(keep_ratio=0.25).select(clip(frames)).kept, 8)
    assert kept[5] > max(kept[:5] + kept[6:])


def test_turns_get_more_than_straight_lines() -> None:
    """The means move straight, turn back at frame 4 and move straight again."""
    at = torch.tensor([0.0, 1, 2, 3, 4, 3, 2, 1, 0])[:, None]
    means = torch.nn.functional.normalize(torch.cat([at, torch.ones_like(at) * 10], 1), dim=1)
    found = curvature(means)
    torch.testing.assert_close(found[[0, 4, 8]], torch.tensor([1.0, 2.0, 1.0]), atol=1e-3, rtol=0)
    assert float(found[[1, 2, 3, 5, 6, 7]].max()) < 0.01
    frames = means[:, None].expand(-1, N_PLACES, -1) + 0.01 * torch.randn(
        9, N_PLACES, 2, generator=torch.Generator().manual_seed(0)
    )
    kept = per_frame(VCAST(keep_ratio=0.25).select(clip(frames)).kept, 9)
    assert kept[4] == max(kept) > kept[0] > kept[2]


def test_brighter_frames_do_not_turn() -> None:
    """Only the direction of features counts."""
    frames = scene(0) * torch.tensor([1.0, 2, 4, 1, 1, 8, 2, 1])[:, None, None]
    assert per_frame(VCAST(keep=40).select(clip(frames)).kept, 8) == [5] * 8


def test_what_stands_out_of_a_frame() -> None:
    """By direction, 1 - 1, 1 - 1 and 1 - .8; by length, 5, 10 and 1 between the shortest and the longest."""
    frame, mean = torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 1.0]]), torch.tensor([0.6, 0.8])
    torch.testing.assert_close(outstanding(frame, mean), torch.tensor([4 / 9, 1.0, 0.2]))


def test_vcast_temperature_shares_more_evenly() -> None:
    tokens = clip(moving(8))
    spread = [torch.tensor(per_frame(VCAST(keep=60, temperature=t).select(tokens).kept, 8)) for t in (0.1, 0.7, 100.0)]
    widths = [int(one.max() - one.min()) for one in spread]
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] <= 1
    assert min(per_frame(VCAST(keep=24, temperature=1e-3).select(tokens).kept, 8)) == 1  # none is left out
    coldest = per_frame(VCAST(keep=24, temperature=1e-60).select(tokens).kept, 8)
    assert sorted(coldest) == [1] * 7 + [17]


@pytest.mark.parametrize("name", VIDEO)
def test_permuted_places_permute_the_selection(name: str) -> None:
    strategy = STRATEGIES[name](keep_ratio=0.3)
    tokens, order = clip(moving(8)), torch.randperm(N_PLACES, generator=torch.Generator().manual_seed(4))
    attention = tokens.vision_attention
    permuted = replace(
        tokens,
        features=tokens.features.view(8, N_PLACES, WIDTH)[:, order].flatten(0, 1),
        statistics={
            "vision_attention": replace(
                attention, queries=attention.queries[:, :, order], keys=attention.keys[:, :, order]
            )
        },
    )

    def mask(seen: VisualTokens) -> Tensor:
        return torch.zeros(160).index_fill(0, strategy.select(seen).kept, 1).view(8, N_PLACES)

    assert torch.equal(mask(permuted), mask(tokens)[:, order])
    assert not torch.equal(mask(permuted), mask(tokens))


def test_dycoke_keeps_the_first_of_four_and_what_changed_most() -> None:
    """The paper's budget: 30 % of the second, third and fourth frame."""
    frames = moving(8)
    selection = DyCokeTTM().select(clip(frames))
    assert per_frame(selection.kept, 8) == [20, 6, 6, 6, 20, 6, 6, 6]
    mask = torch.zeros(160).bool().index_fill(0, selection.kept, True).view(8, N_PLACES)
    for frame, other in ((1, 0), (2, 0), (3, 2), (5, 4), (6, 4), (7, 6)):
        cosine = torch.nn.functional.cosine_similarity(frames[frame], frames[other], dim=-1)
        assert set(mask[frame].nonzero()[:, 0].tolist()) == set(cosine.topk(6, largest=False).indices.tolist())


@pytest.mark.parametrize(("keep_ratio", "least"), [(0.25, "0.25"), (0.125, "0.125"), (0.1, "0.125")])
def test_dycoke_warns_where_it_decides_nothing(keep_ratio: float, least: str) -> None:
    """Of 8 frames, 2 are whole, 1 is, or a part of one; one token more goes to what changed."""
    with pytest.warns(UserWarning, match=rf"keep_ratio=0.475 as in the paper, or at least more than {least}\."):
        DyCokeTTM(keep_ratio=keep_ratio).select(clip(moving(8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DyCokeTTM(keep=round(float(least) * 8) * N_PLACES + 1).select(clip(moving(8)))


@pytest.mark.parametrize(
    ("n_frames", "n_whole", "window"), [(8, 2, 4), (8, 7, 4), (9, 2, 5), (8, 1, 8), (8, 0, 8), (2, 1, 4), (64, 6, 11)]
)
def test_windows_are_as_long_as_the_budget_makes_them(n_frames: int, n_whole: int, window: int) -> None:
    assert window_of(n_frames, n_whole) == window
    assert n_whole == 0 or -(-n_frames // window) <= n_whole


def test_fastvid_merges_a_segment_into_the_anchors_of_every_fourth_frame() -> None:
    """One segment of 8 frames: anchors in frames 3 and 7, which have the contextual budget of all."""
    tokens = clip(moving(8, 0.01))
    strategy = FastVID(keep_ratio=0.25, segments=1, threshold=-1.0)
    selection = strategy.select(tokens)
    attended = tokens.vision_attention.received().view(8, N_PLACES)
    salient = attended.topk(3, dim=1).indices  # of 5 a frame, 3 by attention
    mask = torch.zeros(160).bool().index_fill(0, selection.kept, True).view(8, N_PLACES)
    assert mask.sum(1).tolist() == [3, 3, 3, 11, 3, 3, 3, 11]
    assert bool(mask.gather(1, salient).all())
    merged = selection.merged
    anchors = selection.kept[merged.targets].unique()
    assert set(anchors.tolist()) == set(selection.kept.tolist()) - set(
        (salient + N_PLACES * torch.arange(8)[:, None]).flatten().tolist()
    )
    sums = torch.zeros(len(selection.kept)).index_add(0, merged.targets, merged.weights)
    torch.testing.assert_close(sums[merged.targets], torch.ones(len(merged.targets)))  # every anchor is a mean
    fewer = per_frame(replace(strategy, keep_ratio=0.2).select(tokens).kept, 8)
    assert fewer == [3, 3, 3, 7, 3, 3, 3, 7]  # .4 of 4 are 1.6, rounded down


def test_fastvid_anchor_features() -> None:
    """Two frames of three places, one salient each: the two others of both frames join the nearest of two anchors."""
    frames = torch.tensor([[[9.0, 9], [1, 0], [0, 1]], [[9, 9], [2, 0], [0, 2]]])
    tokens = scored([9.0, 1, 1], Layout(((2, 1, 3),), 2), frames.flatten(0, 1))
    selection = FastVID(keep=4, contextual=0.5, segments=1, threshold=-1.0).select(tokens)
    assert selection.kept.tolist() == [0, 3, 4, 5]
    features = selection.merged.apply(tokens.features, selection.kept)
    # An anchor, itself and one other: weight max(1/3, 0.6), and 0.4 of their mean.
    torch.testing.assert_close(features, torch.tensor([[9.0, 9], [9, 9], [0.6 * 2 + 0.4 * 1.5, 0], [0, 1.8]]))
    no_minimum = FastVID(keep=4, contextual=0.5, segments=1, threshold=-1.0, beta=0.0).select(tokens)
    features = no_minimum.merged.apply(tokens.features, no_minimum.kept)
    torch.testing.assert_close(features[2:], torch.tensor([[2 / 3 + 1.0, 0], [0, 2 / 3 + 1.0]]))


def test_fastvid_s_density_is_that_of_a_token_and_three_others() -> None:
    """Four places have three neighbours nearby each. Three that are closer together have two, and five that are farther
    apart have four. The anchor of one segment is in its last frame."""
    places = torch.cat([torch.arange(3) * 0.05, 100 + torch.arange(4) * 0.2, 300 + torch.arange(5) * 0.5])
    tokens = clip(places[None, :, None].expand(2, -1, -1))
    (anchor,) = FastVID(keep=1, contextual=1.0, segments=1, threshold=-1.0).select(tokens).kept.tolist()
    assert 12 + 3 <= anchor < 12 + 7


def test_fastvid_by_the_cls_token() -> None:
    """Patches attend in proportion to 1, 2 and 4, the CLS token in proportion to the reciprocals."""
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    tokens = scored([1.0, 2, 4], Layout(((2, 1, 3),), 2), features, cls=-1.0)
    assert FastVID(keep=2, contextual=0.0).select(tokens).kept.tolist() == [0, 3]


def test_fastvid_fills_what_anchors_cannot_take() -> None:
    """At 90 %, 11 of 18 a frame by attention, and two anchor frames with 56 for the 9 tokens that each has left. The
    other 38 are the most attended of what is left in the other frames."""
    tokens = clip(moving(8))
    kept = FastVID(keep_ratio=0.9, segments=1, threshold=-1.0).select(tokens).kept
    assert len(kept) == 144
    attended = tokens.vision_attention.received().view(8, N_PLACES)
    left = torch.zeros(160).bool().index_fill(0, kept, True).view(8, N_PLACES)
    assert bool(left[[3, 7]].all())
    filled = left.scatter(1, attended.topk(11, dim=1).indices, False)[[0, 1, 2, 4, 5, 6]]
    dropped = ~left[[0, 1, 2, 4, 5, 6]]
    assert (int(filled.sum()), int(dropped.sum())) == (38, 16)
    others = attended[[0, 1, 2, 4, 5, 6]]
    assert others[filled].min() >= others[dropped].max()
