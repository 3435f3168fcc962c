"""How images reach a model, and which of its arguments shrink with the sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from tokenprune.adapters.base.parts import Parts
from tokenprune.sequence.packing import Packing
from tokenprune.tokens.encoded import Modality


class Inputs(Parts):
    """Which inputs does the model take, and which of them shrink?

    `kwargs` are the arguments of a call of `core` by name, unless a method says otherwise.
    """

    #: Whether the model takes videos too, under the common names.
    takes_video: bool = False
    #: Further arguments of the language model that run along the sequence: (batch, length, ...).
    sequence_arguments: tuple[str, ...] = ()
    #: Whether the base model makes masks for its language model that are not causal.
    noncausal: bool = False
    #: The method of the language model, if any, that adds features to visual tokens between decoder layers.
    inner_features: str | None = None

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The kinds of images that the model takes."""
        image = Modality("image", "get_image_features", "pixel_values", self.config.image_token_id)
        if not self.takes_video:
            return (image,)
        video = Modality("video", "get_video_features", "pixel_values_videos", self.config.video_token_id)
        return image, video

    def visual_mask(self, modality: Modality, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch length"] | None:
        """Which of a call's new columns are visual tokens of a modality; None if the call brings none."""
        if kwargs.get(modality.pixels) is None and self.encoded(modality, kwargs) is None:
            return None
        if kwargs.get("input_ids") is not None:
            return kwargs["input_ids"] == modality.token_id
        embeds = kwargs["inputs_embeds"]
        embedding = self.core.get_input_embeddings()
        return (embeds == embedding(torch.tensor(modality.token_id, device=embeds.device))).all(-1)

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"] | None:
        """At which of the `visual` columns an image starts, for models that take tiles without their images' sizes;
        None if every layout is one image."""
        return None

    def encoded(self, modality: Modality, kwargs: Mapping[str, Any]) -> Any:
        """The output of the encoding function if `generate` called it before the model (transformers 5.2x on)."""
        return (kwargs.get("mm_encoder_outputs") or {}).get(modality.name)

    def prune_arguments(self, kwargs: dict[str, Any], packing: Packing, n_slots: int) -> None:
        """Prune, in place, the language model's arguments besides inputs_embeds, attention_mask and position_ids.
        `n_slots` slots of the cache are filled already."""
        for name in self.sequence_arguments:
            if kwargs.get(name) is not None:
                kwargs[name] = packing.gather_tokens(kwargs[name])

    def prune_inner_features(self, arguments: tuple[Any, ...], packing: Packing) -> tuple[Any, ...]:
        """Prune the arguments of `inner_features` to the columns that an in-LLM stage has left. Hidden states, the
        first of them, are pruned already."""
        raise NotImplementedError

    def unprunable(self, kwargs: Mapping[str, Any]) -> list[str]:
        """The arguments in a call of the model that only fit the unpruned sequence, by name."""
        return ["logits_to_keep"] if isinstance(kwargs.get("logits_to_keep"), Tensor) else []
