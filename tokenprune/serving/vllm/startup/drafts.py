"""Speculative decoding, whose drafts the pruned model only verifies: which methods work with pruned images, and
features without offsets for heads that read them."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from torch import Tensor

from tokenprune.errors import UnsupportedError

#: Methods that propose tokens from those of the request.
FROM_TOKENS = ("ngram", "ngram_gpu", "suffix")
#: Methods that run a head on the hidden states of the pruned model.
BY_HEAD = ("eagle", "eagle3", "mtp")


def check_drafts(vllm_config: Any) -> None:
    """Raise UnsupportedError for a method of speculative decoding that does not work with pruned images."""
    speculative = vllm_config.speculative_config
    if speculative is None or speculative.method in FROM_TOKENS:
        return
    if speculative.method not in ("draft_model", *BY_HEAD):
        raise UnsupportedError(
            f"--speculative-config with the method {speculative.method!r} was not tried with pruned images. Use one of "
            f"{', '.join(FROM_TOKENS)}, draft_model, {', '.join(BY_HEAD)}, or leave it out."
        )
    if not getattr(vllm_config, "use_v2_model_runner", True):  # vLLM 0.34 has no other
        raise UnsupportedError(
            f"--speculative-config with the method {speculative.method!r} needs vLLM's model runner V2 with pruned "
            f"images: V1 derives from a position ID where in the KV cache a draft belongs, and position IDs count the "
            f"pruned tokens. Set VLLM_USE_V2_MODEL_RUNNER=1, use 'ngram', or leave it out."
        )


def read_without_offsets(speculative: Any, width: int) -> None:
    """Let a head that embeds images read the first `width` columns of their features: the rest are our offsets and
    columns that only the pruned model reads. speculative: vLLM's `SpeculativeConfig`."""
    if speculative.method not in BY_HEAD:
        return
    from vllm.model_executor.model_loader.utils import get_model_cls
    from vllm.model_executor.models import supports_multimodal_embeddings

    head: Any = get_model_cls(speculative.draft_model_config)
    if not supports_multimodal_embeddings(head):
        return
    embed = head.embed_input_ids

    def embed_input_ids(self: Any, input_ids: Tensor, multimodal_embeddings: Any = None, **others: Any) -> Tensor:
        if multimodal_embeddings is not None:
            multimodal_embeddings = [rows[:, :width] for rows in multimodal_embeddings]
        return embed(self, input_ids, multimodal_embeddings, **others)

    head.embed_input_ids = embed_input_ids
