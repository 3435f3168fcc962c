"""Strategies that prune before the vision tower: where they run in vLLM, and what their settings mean there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tokenprune import Compose, DivPrune, FlowCut, PixelPrune, Strategy
from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.refusals import check_engine, check_strategy, encodes_apart, needs_image
from tokenprune.serving.vllm.settings import COUNT_STRETCH, Settings

#: Kimi's towers then run as with --mm-encoder-tp-mode data; that of K3 has 12 heads.
UNEVEN = [
    ("kimi_k3", 12, 4, False),
    ("kimi_k3", 12, 8, True),
    ("kimi_k25", 16, 6, True),
    ("muse_glimmer", 16, 6, False),
]
BOTH = Compose(PixelPrune(), DivPrune(keep_ratio=0.25))


@pytest.mark.parametrize("strategy", [PixelPrune(), BOTH], ids=["alone", "composed"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_where_they_run(architecture: str, strategy: Strategy) -> None:
    if ARCHITECTURES[architecture].drops_patches:
        check_strategy(strategy, 6, architecture)
        return
    with pytest.raises(UnsupportedError, match="it needs to prune before the vision tower, which only these can: Qwen"):
        check_strategy(strategy, 6, architecture)


def test_what_else_a_composed_strategy_does_is_checked() -> None:
    with pytest.raises(UnsupportedError, match="needs to prune between the layers of the vision tower"):
        check_strategy(Compose(PixelPrune(), FlowCut()), 6, "TokenPruneQwen3VL")


def test_each_rank_must_know_what_is_left() -> None:
    parallel = SimpleNamespace(
        pipeline_parallel_size=1,
        decode_context_parallel_size=1,
        prefill_context_parallel_size=1,
        use_ubatching=False,
        tensor_parallel_size=2,
    )
    multimodal = SimpleNamespace(video_pruning_rate=None, mm_encoder_tp_mode="data", mm_encoder_only=False)
    config: Any = SimpleNamespace(
        parallel_config=parallel,
        compilation_config=SimpleNamespace(compile_mm_encoder=False, cudagraph_mm_encoder=False),
        lora_config=None,
        model_config=SimpleNamespace(
            hf_config=SimpleNamespace(
                architectures=["TokenPruneQwen3VL"], tokenprune={"strategy": "pixelprune"}, model_type="qwen3_vl"
            ),
            multimodal_config=multimodal,
        ),
    )
    with pytest.raises(UnsupportedError, match=r"--mm-encoder-tp-mode data, or .* with a strategy that prunes before"):
        check_engine(ARCHITECTURES["TokenPruneQwen3VL"], config)


@pytest.mark.parametrize(("model_type", "n_heads", "n_ranks", "apart"), UNEVEN)
def test_heads_that_ranks_cannot_share_equally(model_type: str, n_heads: int, n_ranks: int, apart: bool) -> None:
    hf_config = SimpleNamespace(model_type=model_type, vision_config=SimpleNamespace(num_attention_heads=n_heads))
    model = SimpleNamespace(hf_config=hf_config, multimodal_config=SimpleNamespace(mm_encoder_tp_mode="weights"))
    parallel = SimpleNamespace(tensor_parallel_size=n_ranks)
    assert encodes_apart(SimpleNamespace(model_config=model, parallel_config=parallel)) == apart


def test_images_that_were_encoded_elsewhere() -> None:
    reason = needs_image(ARCHITECTURES["TokenPruneQwen3VL"], PixelPrune())
    assert reason == "PixelPrune reads what the vision tower does with an image"


def test_a_ratio_of_1_is_no_pruning_only_if_a_request_asks_for_it() -> None:
    settings = Settings(PixelPrune())
    assert settings.strategy_at(None) == PixelPrune()
    assert settings.strategy_at(1.0) is None
    assert settings.strategy_at(0.5) == PixelPrune(keep_ratio=0.5)
    assert Settings(DivPrune(keep_ratio=1.0)).strategy_at(None) is None


@pytest.mark.parametrize("strategy", [PixelPrune(), BOTH], ids=["alone", "composed"])
def test_an_image_may_lose_more_than_its_budget_says(strategy: Strategy) -> None:
    """Position IDs of the tokens that are left are those of the whole image."""
    assert Settings(strategy).n_positions(1000) == 1000 * COUNT_STRETCH
