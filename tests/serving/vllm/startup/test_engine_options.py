"""Engine options that do not work with pruning are refused, without vLLM."""

from types import SimpleNamespace
from typing import Any

import pytest

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.startup.drafts import check_drafts
from tokenprune.serving.vllm.startup.engine_options import check_engine, encodes_apart

#: With these, Kimi's towers run as with --mm-encoder-tp-mode data; K3's has 12 heads.
UNEVEN = [
    ("kimi_k3", 12, 4, False),
    ("kimi_k3", 12, 8, True),
    ("kimi_k31", 12, 8, True),
    ("kimi_k25", 16, 6, True),
    ("muse_glimmer", 16, 6, False),
]
ENGINE = {
    "parallel_config.pipeline_parallel_size": 2,
    "parallel_config.decode_context_parallel_size": 2,
    "parallel_config.prefill_context_parallel_size": 2,
    "parallel_config.use_ubatching": True,
    "lora_config": SimpleNamespace(enable_tower_connector_lora=True),
    "compilation_config.compile_mm_encoder": True,
    "compilation_config.cudagraph_mm_encoder": True,
    "model_config.multimodal_config.video_pruning_rate": 0.5,
    "model_config.multimodal_config.mm_encoder_only": True,
}
LLAVA = ARCHITECTURES["TokenPruneLlava"]


def engine_config(strategy: str = "fopru", **settings: Any) -> Any:
    written = {"strategy": strategy, **settings}
    return SimpleNamespace(
        parallel_config=SimpleNamespace(
            pipeline_parallel_size=1,
            decode_context_parallel_size=1,
            prefill_context_parallel_size=1,
            use_ubatching=False,
            tensor_parallel_size=1,
        ),
        compilation_config=SimpleNamespace(compile_mm_encoder=False, cudagraph_mm_encoder=False),
        speculative_config=None,
        lora_config=None,
        kv_transfer_config=None,
        cache_config=SimpleNamespace(enable_prefix_caching=True, kv_offloading_size=None),
        model_config=SimpleNamespace(
            hf_config=SimpleNamespace(architectures=["TokenPruneLlava"], tokenprune=written, model_type="llava"),
            uses_mrope=True,
            multimodal_config=SimpleNamespace(
                video_pruning_rate=None, mm_encoder_tp_mode="weights", mm_encoder_only=False
            ),
        ),
    )


def test_options_that_work() -> None:
    check_engine(LLAVA, engine_config())


@pytest.mark.parametrize(("option", "value"), ENGINE.items(), ids=ENGINE)
def test_options_that_do_not_go_with_pruning_are_refused(option: str, value: Any) -> None:
    config = engine_config()
    *path, name = option.split(".")
    owner = config
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, name, value)
    with pytest.raises(UnsupportedError, match="cannot be combined with pruned images"):
        check_engine(ARCHITECTURES["TokenPruneMistral3"], config)


def test_videos_that_vllm_may_prune_itself() -> None:
    """Nemotron's, as NVIDIA starts it."""
    config = engine_config()
    config.model_config.multimodal_config.video_pruning_rate = 0.5
    check_engine(ARCHITECTURES["TokenPruneNemotronNanoVL"], config)


def test_an_engine_without_images() -> None:
    """vLLM then drops the other components of Qwen4-Exp's position IDs."""
    config = engine_config()
    config.model_config.multimodal_config.language_model_only = True
    check_engine(LLAVA, config)
    with pytest.raises(UnsupportedError, match="--language-model-only cannot be combined with pruned images"):
        check_engine(ARCHITECTURES["TokenPruneQwen4Exp"], config)


def test_a_frontend_without_plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(UnsupportedError, match="VLLM_USE_RUST_FRONTEND=1 cannot be combined with pruned images"):
        check_engine(LLAVA, engine_config())


def test_drafts_of_speculative_decoding() -> None:
    config = engine_config()
    config.speculative_config = SimpleNamespace(method="medusa")
    with pytest.raises(UnsupportedError, match="--speculative-config"):
        check_engine(LLAVA, config)


@pytest.mark.parametrize("name", ["TokenPruneKimiK3", "TokenPruneKimiK31"])
def test_states_of_drafts_that_vllm_keeps_by_the_name_of_a_model(name: str) -> None:
    config = engine_config()
    config.cache_config.use_replayssm = True
    check_engine(ARCHITECTURES[name], config)
    config.speculative_config = SimpleNamespace(method="ngram")
    with pytest.raises(UnsupportedError, match="--use-replayssm with --speculative-config cannot be combined"):
        check_engine(ARCHITECTURES[name], config)


def test_data_parallel_tower() -> None:
    config = engine_config()
    config.parallel_config.tensor_parallel_size = 2
    check_engine(LLAVA, config)
    config.model_config.multimodal_config.mm_encoder_tp_mode = "data"
    check_engine(ARCHITECTURES["TokenPruneQwen3VL"], config)
    with pytest.raises(UnsupportedError, match=r"--mm-encoder-tp-mode data cannot be combined"):
        check_engine(LLAVA, config)


def test_compact_ids_of_a_cached_prefix() -> None:
    """With several components, a later image changes the IDs before it, which vLLM's block hashes do not include."""
    qwen = ARCHITECTURES["TokenPruneQwen2VL"]
    check_engine(qwen, engine_config())
    config = engine_config(position_ids="compact")
    check_engine(LLAVA, config)
    with pytest.raises(UnsupportedError, match="Write --no-enable-prefix-caching"):
        check_engine(qwen, config)
    check_engine(qwen, engine_config("downsample"))  # numbers every image by itself, as the model does
    with pytest.raises(UnsupportedError, match="Write --no-enable-prefix-caching"):
        check_engine(qwen, engine_config("downsample+fopru", position_ids="compact"))
    config.cache_config.enable_prefix_caching = False
    check_engine(qwen, config)
    for owner, option in ((config, "kv_transfer_config"), (config.cache_config, "kv_offloading_size")):
        setattr(owner, option, 1)
        check_engine(LLAVA, config)
        with pytest.raises(UnsupportedError, match="--kv-offloading-size cannot be combined with compact position IDs"):
            check_engine(qwen, config)
        setattr(owner, option, None)


@pytest.mark.parametrize("position_ids", ["original", "compact"])
def test_a_config_without_sections_of_position_ids(position_ids: str) -> None:
    """From them, vLLM derives the number of components of position IDs, and the worker relies on three."""
    config = engine_config(position_ids=position_ids)
    config.cache_config.enable_prefix_caching = False
    config.model_config.uses_mrope = False
    check_engine(LLAVA, config)
    with pytest.raises(UnsupportedError, match=r"its config\.json names no mrope_section, .* Copy rope_parameters"):
        check_engine(ARCHITECTURES["TokenPruneQwen2VL"], config)


def test_each_rank_must_know_what_is_left_before_the_tower() -> None:
    config = engine_config("pixelprune")
    config.parallel_config.tensor_parallel_size = 2
    check_engine(ARCHITECTURES["TokenPruneQwen3VL"], config)
    config.model_config.multimodal_config.mm_encoder_tp_mode = "data"
    with pytest.raises(UnsupportedError, match=r"--mm-encoder-tp-mode data, or .* with a strategy that prunes before"):
        check_engine(ARCHITECTURES["TokenPruneQwen3VL"], config)


@pytest.mark.parametrize(("model_type", "n_heads", "n_ranks", "apart"), UNEVEN)
def test_heads_that_ranks_cannot_share_equally(model_type: str, n_heads: int, n_ranks: int, apart: bool) -> None:
    config = engine_config()
    config.parallel_config.tensor_parallel_size = n_ranks
    vision = SimpleNamespace(num_attention_heads=n_heads)
    config.model_config.hf_config = SimpleNamespace(model_type=model_type, vision_config=vision)
    assert encodes_apart(config) == apart


#: Which methods of speculative decoding work with pruned images; test_speculative.py runs them.


def drafting(method: str, v2: bool) -> Any:
    return SimpleNamespace(speculative_config=SimpleNamespace(method=method), use_v2_model_runner=v2)


@pytest.mark.parametrize("method", ["ngram", "ngram_gpu", "suffix"])
@pytest.mark.parametrize("v2", [False, True])
def test_drafts_from_tokens(method: str, v2: bool) -> None:
    check_drafts(drafting(method, v2))


@pytest.mark.parametrize("method", ["draft_model", "eagle", "eagle3", "mtp"])
def test_drafts_by_a_model(method: str) -> None:
    check_drafts(drafting(method, v2=True))
    with pytest.raises(UnsupportedError, match=rf"'{method}' needs vLLM's model runner V2.*VLLM_USE_V2_MODEL_RUNNER=1"):
        check_drafts(drafting(method, v2=False))
    without_v1 = drafting(method, v2=True)
    del without_v1.use_v2_model_runner  # as from vLLM 0.34 on
    check_drafts(without_v1)


@pytest.mark.parametrize("method", ["medusa", "dflash", "custom_class"])
def test_other_drafts_are_refused(method: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"{method}.*Use one of ngram, .*mtp, or leave it out"):
        check_drafts(drafting(method, v2=True))
