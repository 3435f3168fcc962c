"""Models that embed pages and queries for late interaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tokenprune.adapters.registry import check_transformers
from tokenprune.errors import PruningError, UnsupportedError


class Retriever:
    """Reads and writes the page embeddings of one loaded retrieval model. Raises UnsupportedError for a model of any
    other class, and outside the supported transformers versions."""

    #: transformers classes whose output has "embeddings", one per input token, with zeros for padding.
    classes = ("ColPaliForRetrieval", "ColQwen2ForRetrieval", "ColModernVBertForRetrieval")

    def __init__(self, model: object) -> None:
        names = [cls.__name__ for cls in type(model).__mro__]
        if not isinstance(model, nn.Module) or not any(name in self.classes for name in names):
            raise UnsupportedError(
                f"{names[0]} is not a retrieval model whose page embeddings can be merged. Supported: "
                f"{', '.join(self.classes)}. Patch a model that answers questions with "
                f"tokenprune.patch(model, strategy)."
            )
        check_transformers()
        self.model = model
        self._config: Any = model.config

    def patches(self, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch length"] | None:
        """The tokens of a call that are patches of a page; None if the call contains no image."""
        ids = kwargs.get("input_ids")
        if ids is None:
            raise PruningError("only input_ids distinguish pages from queries. Pass them instead of inputs_embeds.")
        if kwargs.get("pixel_values") is None:
            return None
        return ids == self._config.vlm_config.image_token_id

    def real(
        self, kwargs: Mapping[str, Any], embeddings: Float[Tensor, "batch length width"]
    ) -> Bool[Tensor, "batch length"]:
        """The tokens of a call that are not padding."""
        mask = kwargs.get("attention_mask")
        if mask is None:
            return torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        return mask.to(embeddings.device).bool()

    def embeddings(self, output: Any) -> Float[Tensor, "batch length width"]:
        return output[0] if isinstance(output, tuple) else output.embeddings

    def with_embeddings(self, output: Any, embeddings: Float[Tensor, "batch shorter width"]) -> Any:
        """The output of a call with its embeddings replaced."""
        if isinstance(output, tuple):
            return (embeddings, *output[1:])
        output.embeddings = embeddings
        return output
