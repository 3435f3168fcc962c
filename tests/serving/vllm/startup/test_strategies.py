"""Strategies that vLLM can run keep exactly their budget: it counts an image's tokens before it encodes it. Where those
run that prune before the vision tower or shrink the image, and what their settings mean there."""

from dataclasses import replace

import pytest
import torch
from helpers.served.families import FAMILIES

from tokenprune import EVS, STRATEGIES, Compose, DivPrune, Downsample, FlowCut, PixelPrune, Strategy
from tokenprune.engine.select import checked_selection
from tokenprune.errors import UnsupportedError
from tokenprune.evals.dev.tables.served import rows
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.settings import COUNT_STRETCH, Budget, Settings
from tokenprune.serving.vllm.startup.refusals import check_strategy, needs_image
from tokenprune.strategies.registry import make
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

N_LAYERS = 6


def served() -> list[Strategy]:
    """Return every strategy with default settings and one stage that the plug-in does not refuse."""
    found = []
    for name, cls in STRATEGIES.items():
        strategy = make(name, progressive=False) if hasattr(cls, "progressive") else make(name)
        try:
            check_strategy(strategy, N_LAYERS, "TokenPruneLlava")
        except UnsupportedError:
            continue
        if "shrunk" not in strategy.needs:  # a smaller image may have fewer tokens than its budget
            found.append(strategy)
    return found


def tokens(layout: Layout, strategy: Strategy, seed: int) -> VisualTokens:
    generator = torch.Generator().manual_seed(seed)
    n_patches = 36
    queries, keys = (torch.randn(layout.n_tiles, 2, 1 + n_patches, 8, generator=generator) for _ in range(2))
    pixels = torch.rand(layout.n_tiles, 3, 24, 24, generator=generator)
    statistics = {
        "vision_attention": VisionAttention(queries, keys, 0.5, 1, layout),
        "pixels": tuple(pixels),
        "colors": tuple(pixels),
    }
    features = torch.randn(layout.n_visual, 16, generator=generator)
    return VisualTokens(features, layout, 0, {name: one for name, one in statistics.items() if name in strategy.needs})


def test_most_strategies_are_served() -> None:
    assert {"FoPru", "VisionZip", "DivPrune", "VFlowOpt", "Grid"} <= {type(one).__name__ for one in served()}
    assert not {"FastV", "PyramidDrop", "FlowCut"} & {type(one).__name__ for one in served()}


@pytest.mark.parametrize("strategy", served(), ids=lambda strategy: type(strategy).__name__)
@pytest.mark.parametrize("ratio", [0.03, 0.25, 0.6])
def test_exact(strategy: Strategy, ratio: float) -> None:
    pruned = replace(strategy, keep_ratio=ratio)
    tile = Layout.raster((1, 6, 6))
    for seed, layout in enumerate([tile, Layout.concat([tile] * 3)]):
        kept = checked_selection(pruned, tokens(layout, pruned, seed)).kept
        assert len(kept) == pruned.budget(layout.n_visual)


SHRUNK = Compose(Downsample(keep_ratio=0.5), DivPrune(keep_ratio=0.25))
#: These have tests of their own: vLLM's Transformers backend, no images, and chunks of videos.
ELSEWHERE = {"TokenPruneTransformers", "TokenPruneLlavaNextVideo", "TokenPruneKimiK25"}
BOTH = Compose(PixelPrune(), DivPrune(keep_ratio=0.25))


@pytest.mark.parametrize(
    ("strategy", "record", "what"),
    [
        *((one, "drops_patches", "prune before the vision tower") for one in (PixelPrune(), BOTH)),
        *((one, "shrinks", "have smaller versions of images encoded") for one in (Downsample(), SHRUNK)),
        (EVS(), "joins_frames", "compare the frames of a video"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_where_they_run(architecture: str, strategy: Strategy, record: str, what: str) -> None:
    if getattr(ARCHITECTURES[architecture], record):
        check_strategy(strategy, 6, architecture)
        return
    with pytest.raises(UnsupportedError, match=rf"to {what}, which only these can: .*Qwen"):
        check_strategy(strategy, 6, architecture)


def test_every_mark_is_run() -> None:
    """The engine's tests run a tiny model of each row of the table of served models: with videos if how one is written
    is known, with PixelPrune and Downsample if its record says so."""
    videos = {one.architecture: one.video is not None for one in FAMILIES}
    for first, *_ in rows().values():
        if first.name not in ELSEWHERE:
            assert videos[first.name] == first.prunes_videos, first.name


def test_what_else_a_composed_strategy_does_is_checked() -> None:
    with pytest.raises(UnsupportedError, match="needs to prune between the layers of the vision tower"):
        check_strategy(Compose(PixelPrune(), FlowCut()), 6, "TokenPruneQwen3VL")


def test_images_that_were_encoded_elsewhere() -> None:
    reason = needs_image(ARCHITECTURES["TokenPruneQwen3VL"], PixelPrune())
    assert reason == "PixelPrune reads what the vision tower does with an image"


def test_a_ratio_of_1_is_no_pruning_only_if_a_request_asks_for_it() -> None:
    settings = Settings(PixelPrune())
    assert settings.strategy_at(None) == PixelPrune()
    assert settings.strategy_at(Budget(1.0)) is None
    assert settings.strategy_at(Budget(0.5)) == PixelPrune(keep_ratio=0.5)
    assert Settings(DivPrune(keep_ratio=1.0)).strategy_at(None) is None


@pytest.mark.parametrize("strategy", [PixelPrune(), BOTH], ids=["alone", "composed"])
def test_an_image_may_lose_more_than_its_budget_says(strategy: Strategy) -> None:
    """The position IDs of the tokens that are left are those in the whole image."""
    assert Settings(strategy).n_positions(1000) == 1000 * COUNT_STRETCH


def test_a_smaller_image_may_have_half_its_budget() -> None:
    assert Settings(Downsample(keep_ratio=0.125), "original").n_positions(1000) == 16 * 1000
