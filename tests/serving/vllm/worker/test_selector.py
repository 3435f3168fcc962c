"""The kept tokens of an image fill the places that vLLM has reserved for it."""

import pytest
import torch
from helpers.served.engine import needs_vllm

from tokenprune.encoded import EncodedImage
from tokenprune.selection import Merge, Selection
from tokenprune.strategy import Strategy
from tokenprune.tokens import Layout, VisualTokens

pytestmark = needs_vllm


class Fewer(Strategy):
    """Keeps one token fewer than its budget."""

    def select(self, tokens: VisualTokens) -> Selection:
        scores = tokens.features[:, 0]
        return Selection.best(scores, self.budget(tokens.n_visual) - 1)


class Refusing(Strategy):
    def select(self, tokens: VisualTokens) -> Selection:
        raise ValueError(f"no order of {tokens.n_visual}")


class Zeroing(Strategy):
    """Changes its tokens in place, which is undetectable in torch.inference_mode."""

    def select(self, tokens: VisualTokens) -> Selection:
        tokens.features.zero_()
        return Selection.best(tokens.features[:, 0], self.budget(tokens.n_visual))


class Folding(Strategy):
    """Merges the second token into the first."""

    def select(self, tokens: VisualTokens) -> Selection:
        kept = tokens.features[:, 0].topk(self.budget(tokens.n_visual)).indices.sort().values
        halves = Merge(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([0.5, 0.5]))
        return Selection(kept, tokens.n_visual, merged=halves)


@pytest.mark.parametrize(("n_broken", "wanted"), [(1, [0, 2, 3]), (4, [0, 1, 5])])
def test_features_that_are_no_numbers(n_broken: int, wanted: list[int], caplog: pytest.LogCaptureFixture) -> None:
    """No error is raised, since that would end the engine, and no NaN gets into the KV cache."""
    from tokenprune import DivPrune
    from tokenprune.serving.vllm.settings import Settings
    from tokenprune.serving.vllm.worker.selector import ImageSelector, logger

    logger.addHandler(caplog.handler)
    features = torch.randn(6, 2)
    features[1 : 1 + n_broken] = torch.nan
    selector = ImageSelector(Settings(DivPrune(keep=3)), 2, reports=False)
    rows, kept = selector.select(features, EncodedImage(Layout.raster((1, 2, 3)), {}), None, 3)
    logger.removeHandler(caplog.handler)
    assert kept.tolist() == wanted
    assert torch.equal(rows, features[kept].nan_to_num())
    assert "NaN or infinity, from which DivPrune cannot select" in caplog.text


def test_a_strategy_that_keeps_fewer_is_filled_up(caplog: pytest.LogCaptureFixture) -> None:
    from tokenprune.serving.vllm.settings import Budget, Settings
    from tokenprune.serving.vllm.worker.selector import ImageSelector

    selector = ImageSelector(Settings(Fewer(keep=3)), 2)
    features = torch.tensor([[5.0, 0], [1, 1], [4, 2], [3, 3], [0, 4], [2, 5]])
    image = EncodedImage(Layout.raster((1, 2, 3)), {})
    for _ in range(2):
        rows, kept = selector.select(features, image, None, 3)
        assert kept.tolist() == [0, 2, 3]
        assert torch.equal(rows, features[kept])
    assert sum("kept fewer visual tokens than its budget" in one.message for one in caplog.records) <= 1
    rows, kept = selector.select(features, image, Budget(1.0), 6)
    assert kept.tolist() == list(range(6))


def test_only_what_was_encoded_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Neither unused places nor those of an image with NaN are filled with zeros."""
    from tokenprune import Compose, PixelPrune
    from tokenprune.serving.vllm.processor.item import PrunedItem
    from tokenprune.serving.vllm.settings import Settings
    from tokenprune.serving.vllm.worker.selector import ImageSelector, with_left

    item = PrunedItem((6,), None, 0, (), (1, 3, 4, 5))
    images = [EncodedImage(Layout.raster((1, 2, 3)), {})]
    (elsewhere,) = with_left(images, item, torch.device("meta"))
    assert elsewhere.statistics["kept_before_tower"].kept.device.type == "meta"
    (image,) = with_left(images, item, torch.device("cpu"))
    features = torch.randn(6, 2)
    features[[0, 2]] = 0.0
    fewer = ImageSelector(Settings(Compose(PixelPrune(), Fewer(keep=3))), 2, reports=False)
    kept = fewer.select(features, image, None, 3)[1].tolist()
    assert len(set(kept)) == 3
    assert set(kept) < {1, 3, 4, 5}
    features[4] = torch.nan
    broken = ImageSelector(Settings(Compose(PixelPrune(), Refusing(keep=3))), 2, reports=False)
    assert broken.select(features, image, None, 3)[1].tolist() == [1, 3, 5]


def test_a_strategy_that_changes_its_tokens_in_place() -> None:
    """This does not change what the model gets, as in transformers."""
    from tokenprune.serving.vllm.settings import Settings
    from tokenprune.serving.vllm.worker.selector import ImageSelector

    image = EncodedImage(Layout.raster((1, 2, 3)), {})
    with torch.inference_mode():
        features = torch.randn(6, 2)
        before = features.clone()
        rows, kept = ImageSelector(Settings(Zeroing(keep=3)), 2).select(features, image, None, 3)
    assert torch.equal(features, before)
    assert torch.equal(rows, before[kept])


def test_features_that_are_a_sum() -> None:
    """The sum of parts that enter the language model one by one: a strategy sees the sum, and each part is merged."""
    from tokenprune.serving.vllm.settings import Settings
    from tokenprune.serving.vllm.worker.selector import ImageSelector

    first, second = torch.tensor([[6.0, 1], [0, 2], [0, 3], [0, 4]]), torch.tensor([[0.0, 5], [0, 6], [9, 7], [8, 8]])
    image = EncodedImage(Layout.raster((1, 2, 2)), {})
    selector = ImageSelector(Settings(Folding(keep=2)), 2, n_summed=2, reports=False)
    rows, kept = selector.select(torch.cat([first, second], 1), image, None, 2)
    assert kept.tolist() == [2, 3]  # of 6, 0, 9 and 8
    assert rows.tolist() == [[3.0, 1.5, 0.0, 5.5], [0.0, 4.0, 8.0, 8.0]]
