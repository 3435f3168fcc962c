"""VidCom2: channels, similarity and shares of frames, computed by hand."""

import pytest
import torch

from tokenprune import VidCom2
from tokenprune.strategies.video.vidcom2 import likeness, shares, steady_channels
from tokenprune.tokens import Frames, Layout, VisualTokens


def test_half_of_the_channels_that_vary_least() -> None:
    """Of two frames of two tokens: the variances of five channels are 1, 0, 4, 2.25 and 0.25, about these means."""
    means, signs = torch.tensor([0.0, 300, 0, 0, 200]), torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    features = means + signs * torch.tensor([1.0, 0, 2, 1.5, 0.5])
    frames = Frames(torch.arange(4).view(2, 2), torch.arange(0))
    assert sorted(steady_channels(frames, features).tolist()) == [1, 4]
    assert sorted(steady_channels(frames, features[:, [0, 2, 3, 4, 1, 2]]).tolist()) == [0, 3, 4]
    assert steady_channels(frames, features[:, :1]).tolist() == [0]


def test_likeness_is_a_sum_of_five_gaussians() -> None:
    """Their variances are 1/8 to 2. At a squared distance of 2, the exponents are -8, -4, -2, -1 and -1/2."""
    found = likeness(torch.tensor([[3.0, 4.0], [4.0, 5.0]]), torch.tensor([3.0, 4.0]))
    expected = torch.tensor([-8.0, -4, -2, -1, -0.5]).exp().sum()
    torch.testing.assert_close(found, torch.stack([torch.tensor(5.0), expected]))


def test_scores_are_of_what_is_unlike_the_video_and_the_frame() -> None:
    features = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(features[:, features.var(0).argsort()[:3]], dim=1)
    like_frames = torch.cat([likeness(frame, frame.mean(0)) for frame in unit.split(4)])
    scores = VidCom2(keep=5).select(VisualTokens(features, Layout.raster((3, 2, 2)))).scores
    torch.testing.assert_close(scores, -(likeness(unit, unit.mean(0)) + like_frames))


def test_frames_keep_their_shares_and_the_budget_is_exact() -> None:
    """If the rounded shares exceed the budget, the lowest scores among the kept tokens are dropped; if they fall short,
    the highest among the dropped ones are kept."""
    features = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(features[:, features.var(0).argsort()[:3]], dim=1)
    like_video = likeness(unit, unit.mean(0))
    scores = -(like_video + torch.cat([likeness(frame, frame.mean(0)) for frame in unit.split(20)]))
    tokens = VisualTokens(features, Layout.raster((3, 4, 5)))
    signs: set[int] = set()
    for keep in range(6, 40):
        counts = shares(like_video.view(3, 20).mean(1), keep / 60, 20).tolist()
        best = [frame * 20 + scores[frame * 20 :][:20].topk(count).indices for frame, count in enumerate(counts)]
        first = torch.zeros(60).double().index_fill(0, torch.cat(best), 100.0)  # more than any score
        expected = (scores + first).topk(keep).indices.sort().values
        assert VidCom2(keep=keep).select(tokens).kept.tolist() == expected.tolist()
        signs.add((sum(counts) > keep) - (sum(counts) < keep))
    assert signs == {-1, 0, 1}


@pytest.mark.parametrize(("keep_ratio", "expected"), [(0.4, [10, 6]), (0.88, [20, 13]), (0.01, [1, 1])])
def test_shares_of_frames(keep_ratio: float, expected: list[int]) -> None:
    """A hundredth of ln 3 apart, the softmax is 3/4 and 1/4: of 20 places, 1.25 and .75 times the ratio, at most all
    and at least one."""
    like_video = torch.tensor([0.0, 0.01 * torch.tensor(3.0).log()])
    assert shares(like_video, keep_ratio, 20).tolist() == expected
