"""Engine options that do not work with pruning, refused at startup. Does not load vLLM."""

from __future__ import annotations

import os
from typing import Any

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.architecture import Architecture
from tokenprune.serving.vllm.settings import ORIGINAL, Settings
from tokenprune.serving.vllm.startup.drafts import check_drafts
from tokenprune.serving.vllm.towers.from_config import n_heads

#: Types of models whose ranks encode different images if they cannot share the vision tower's heads equally.
SPLIT_BY_IMAGE = {record.model_type for record in ARCHITECTURES.values() if record.splits_images}
#: The environment variable that lets `vllm serve` start a frontend without plug-ins.
RUST = "VLLM_USE_RUST_FRONTEND"


def encodes_apart(vllm_config: Any) -> bool:
    """Whether tensor parallel ranks encode different images: if requested, and in Kimi also if the vision tower's heads
    cannot be split equally."""
    model, n_ranks = vllm_config.model_config, vllm_config.parallel_config.tensor_parallel_size
    if model.hf_config.model_type in SPLIT_BY_IMAGE and n_heads(model.hf_config.vision_config) % n_ranks:
        return True
    return n_ranks > 1 and model.multimodal_config.mm_encoder_tp_mode == "data"


def check_engine(architecture: Architecture, vllm_config: Any) -> None:
    """Raise UnsupportedError for engine options that do not work with pruning."""
    parallel, compilation = vllm_config.parallel_config, vllm_config.compilation_config
    settings = Settings.of(vllm_config.model_config.hf_config)
    multimodal, lora = vllm_config.model_config.multimodal_config, vllm_config.lora_config
    refused = {
        "--pipeline-parallel-size": (
            parallel.pipeline_parallel_size > 1,
            "only the first stage sees the images, and later ones would not know their position IDs",
        ),
        "--decode-context-parallel-size and --prefill-context-parallel-size": (
            parallel.decode_context_parallel_size > 1 or parallel.prefill_context_parallel_size > 1,
            "a rank sees only part of the tokens, and would look up their position IDs in the wrong place",
        ),
        "--enable-dbo": (
            parallel.use_ubatching,
            "a micro-batch sees only part of the tokens, and would look up their position IDs in the wrong place",
        ),
        "compile_mm_encoder in --compilation-config": (
            compilation.compile_mm_encoder,
            "the attention of a compiled vision tower cannot be read",
        ),
        "cudagraph_mm_encoder in --compilation-config": (
            compilation.cudagraph_mm_encoder,
            "a replayed vision tower bypasses the selection",
        ),
        "--enable-tower-connector-lora": (
            lora is not None and lora.enable_tower_connector_lora,
            "vLLM would derive the number of the tower's tokens from those that are kept",
        ),
        "--mm-encoder-only, which an EC producer implies,": (
            multimodal.mm_encoder_only and architecture.has_markers,
            "the text between an image's visual tokens is embedded by the language model, which is not loaded",
        ),
        "--use-replayssm with --speculative-config": (
            "--use-replayssm with --speculative-config" in architecture.refuses
            and vllm_config.speculative_config is not None
            and vllm_config.cache_config.use_replayssm,
            "vLLM keeps the states that this needs for the unpruned model only",
        ),
        "--language-model-only": (
            "--language-model-only" in architecture.refuses and multimodal.language_model_only,
            "position IDs of this model then have one component, and there are no images to prune",
        ),
        "--video-pruning-rate": (
            bool(multimodal.video_pruning_rate) and not architecture.leaves_videos,
            "vLLM's own pruning of videos also appends position IDs",
        ),
        f"{RUST}=1": (
            os.environ.get(RUST, "0") != "0",
            "vLLM's frontend in Rust prepares the images of a prompt itself, and unpruned",
        ),
        "--mm-encoder-tp-mode data": (
            encodes_apart(vllm_config)
            and not architecture.joins_ranks
            and "vision_attention" in settings.strategy.needs,
            "each rank encodes different images, and sees only their attention, which DivPrune, for one, does not read",
        ),
        "--mm-encoder-tp-mode data, or a number of ranks that does not divide the heads of Kimi's vision tower, with a "
        "strategy that prunes before it": (
            encodes_apart(vllm_config) and "kept_before_tower" in settings.strategy.needs,
            "each rank encodes different images, and does not know which",
        ),
    }
    for option, (given, reason) in refused.items():
        if given:
            raise UnsupportedError(f"{option} cannot be combined with pruned images: {reason}. Leave it out.")
    check_drafts(vllm_config)
    if not architecture.mrope:
        return
    if not vllm_config.model_config.uses_mrope:
        raise UnsupportedError(
            f"{architecture.name} has position IDs of three components (M-RoPE), but its config.json names no "
            f"mrope_section, so vLLM would give it one. Copy rope_parameters, or in older files rope_scaling, from the "
            f"config.json of the model that it is made from."
        )
    if settings.position_ids == "compact" and not settings.only_shrinks:
        check_kept_keys(vllm_config)


def check_kept_keys(vllm_config: Any) -> None:
    """Raise UnsupportedError for options that let keys outlive their request or come from elsewhere, if position IDs
    are compact and have several components."""
    cache = vllm_config.cache_config
    reason = "compact position IDs of this model: a later image that is pruned changes the IDs of what comes before it."
    if cache.enable_prefix_caching:
        raise UnsupportedError(
            f"prefix caching cannot be combined with {reason} Write --no-enable-prefix-caching, "
            f'"enable_prefix_caching": false in --engine-options, or {ORIGINAL}.'
        )
    if vllm_config.kv_transfer_config is not None or cache.kv_offloading_size is not None:
        raise UnsupportedError(
            f"--kv-transfer-config and --kv-offloading-size cannot be combined with {reason} Leave them out, or write "
            f"{ORIGINAL}."
        )
