"""Ovis 2.5 and 2.6 in their authors' format: images and videos of any size, whose visual tokens are mixtures of a
visual vocabulary, which has the marks around them too.

vLLM treats these marks as rows of the encoder's output. Here they are tokens of the text, so that only visual tokens
are pruned.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from vllm.model_executor.models import ovis2_5
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import PromptUpdateDetails

from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.models.qwen_vl import PIXELS, PrunedNormalised
from tokenprune.serving.vllm.processor.patches import frames_of
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.towers.from_config import config_with_tower
from tokenprune.serving.vllm.worker.before_tower import PatchDropping
from tokenprune.tokens import PatchTokens

#: The fields that hold the patches and the grid of an image or video.
FIELDS = {"image": ("pixel_values", "grids"), "video": ("video_pixel_values", "video_grids")}


class Ovis2_5Processor(PruningProcessor, ovis2_5.Ovis2_5MultiModalProcessor):
    pruned = tuple(FIELDS)

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        n_frames = int(item[FIELDS[modality][1]].data[0, 0])
        return (n_visual // n_frames,) * n_frames

    def patches(self, modality: str, item: Any) -> Sequence[PatchTokens]:
        patches, grids = (item[name].data for name in FIELDS[modality])
        return frames_of(self.info.get_hf_config(), patches, grids[0])

    def _get_prompt_updates(self, *args: Any, **kwargs: Any) -> Sequence[Any]:
        updates = super()._get_prompt_updates(*args, **kwargs)
        return [
            replace(update, replacement=partial(self._marked, update.modality, update.replacement))
            for update in updates
        ]

    def _marked(self, modality: str, replacement: Callable[[int], list[int]], index: int) -> PromptUpdateDetails:
        """An item's placeholder in which the first and the last token are its marks, not visual tokens."""
        token = self.info.get_hf_processor().get_token_value
        ids = [token(f"{modality}_start"), *replacement(index)[1:-1], token(f"{modality}_end")]
        return PromptUpdateDetails.select_token_id(ids, token("image_pad"))


class WithMarksInText(ovis2_5.Ovis2_5):
    """vLLM's model, which returns the features of visual tokens only, and embeds marks in the text. Its vision tower is
    described as Qwen2.5-VL's is."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.config = config_with_tower(self.config)

    def _process_visual_input(self, visual_input: Any) -> tuple[Tensor, ...]:
        return tuple(rows[1:-1] for rows in super()._process_visual_input(visual_input))

    def embed_input_ids(self, input_ids: Int[Tensor, " scheduled"], *args: Any, **kwargs: Any) -> Tensor:
        embedded, n_marks = super().embed_input_ids(input_ids, *args, **kwargs), len(ovis2_5.INDICATOR_IDS)
        marks = input_ids - ovis2_5.INDICATOR_IDS[0]  # at the end of the visual vocabulary, in the same order
        rows = self.vte(marks.clamp(0, n_marks - 1) + self.config.visual_vocab_size - n_marks)
        return torch.where(((marks >= 0) & (marks < n_marks))[:, None], rows.to(embedded), embedded)


@MULTIMODAL_REGISTRY.register_processor(
    Ovis2_5Processor, info=ovis2_5.Ovis2_5ProcessingInfo, dummy_inputs=ovis2_5.Ovis2_5DummyInputsBuilder
)
class PrunedOvis2_5(PrunedNormalised, WithMarksInText, SupportsMRoPE):
    """vLLM's Ovis 2.5, pruned."""

    n_components = 1
    pruned = tuple(FIELDS)

    @property
    def decoder(self) -> Any:
        return self.llm

    @property
    def layers(self) -> Any:
        """Those of the vision tower."""
        return self.visual_tokenizer.vit.vision_model.encoder.layers

    def attention_module(self) -> Any:
        return self.layers[self.attention_layer].self_attn.attn

    def make_patch_dropping(self) -> PatchDropping:
        last = self.layers[-1]  # the tower reorders its output without a module
        return PatchDropping(self.config, self.layers, [last], last.self_attn.attn.attn_backend)

    def grids(self, arguments: dict[str, Any]) -> Int[Tensor, "images 3"]:
        return torch.cat([*arguments[FIELDS[modality_of(arguments)][1]]])

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return {}

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        modality = modality_of(arguments)
        patches = torch.cat([*arguments[FIELDS[modality][0]]])
        named = {f"{modality}_grid_thw": self.grids(arguments), PIXELS[modality]: patches}
        return super().encoded_images({**arguments, **named}, features)


def modality_of(arguments: Mapping[str, Any]) -> str:
    """Whether a call of `embed_multimodal` has images or videos; it never has both."""
    return next(modality for modality, (name, _) in FIELDS.items() if name in arguments)
