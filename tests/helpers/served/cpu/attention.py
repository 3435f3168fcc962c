"""Bidirectional attention within images on a CPU. vLLM has it only on GPUs, so its Triton kernels run in Triton's
interpreter."""

# pyright: reportMissingImports=false

from typing import Any

from torch import Tensor


def attend_within_images() -> None:
    """Make vLLM use these kernels for models that need them. Call it before a model is configured."""
    from vllm.platforms import current_platform
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.attention.backends import triton_attn
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    class Platform(CpuPlatform):
        @classmethod
        def get_attn_backend_cls(
            cls, selected_backend: Any, attn_selector_config: Any, num_heads: int | None = None
        ) -> str:
            if attn_selector_config.use_mm_prefix:
                return AttentionBackendEnum.TRITON_ATTN.get_path()
            return super().get_attn_backend_cls(selected_backend, attn_selector_config, num_heads)

        @classmethod
        def check_and_update_config(cls, vllm_config: Any) -> None:
            super().check_and_update_config(vllm_config)
            model_config = vllm_config.model_config
            if model_config is not None and model_config.is_mm_prefix_lm:  # as in vLLM's platform for GPUs
                vllm_config.scheduler_config.disable_chunked_mm_input = True

    if type(current_platform) is CpuPlatform:
        current_platform.__class__ = Platform
        triton_attn.triton_reshape_and_cache_flash = write  # vLLM's own checks the kind of GPU
        triton_attn.MIN_LAUNCH_GRID_SIZE_2D = 0  # otherwise an answer's attention is computed in 16 sequential parts


def write(
    key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor, *quantisation: Any
) -> None:
    """Write keys and values, (tokens, heads, width), to their slots of a cache, (blocks, slots, heads, width)."""
    real = slots >= 0
    where = (slots[real] // key_cache.shape[1], slots[real] % key_cache.shape[1])
    key_cache[where], value_cache[where] = key[: len(slots)][real], value[: len(slots)][real]
