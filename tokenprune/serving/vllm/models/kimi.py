"""Kimi K2.5: images of any size, and videos in chunks of frames that the tower sees together and averages. vLLM calls
both vision chunks; each is pruned separately."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor
from vllm.model_executor.models import kimi_k25
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.kimi import chunk_layout, chunk_pixels
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.patches import frames_of
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.before_tower import PatchDropping
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import images_of_any_size
from tokenprune.tokens import PatchTokens


class PrunedKimi(PrunedModel):
    """Shared by models whose tower gets the patches of all images, or chunks of frames, in one sequence."""

    def make_patch_dropping(self) -> PatchDropping:
        encoder = self.vision_tower.encoder
        attention = encoder.blocks[0].attn.attn_backend
        return PatchDropping(self.config, encoder.blocks, [encoder.final_layernorm], attention)

    def grids(self, arguments: dict[str, Any]) -> Int[Tensor, "images 3"]:
        return arguments["grid_thws"]

    def attention_module(self) -> Any:
        blocks = self.vision_tower.encoder.blocks
        return blocks[self.attention_layer].attn

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return {"pixel_values": self.grids(arguments).prod(-1).tolist()}

    def normalised(self, patches: Real[Tensor, "patches channels y x"]) -> Float[Tensor, "patches channels y x"]:
        """The pixels as the tower normalises them before embedding."""
        return self.vision_tower.patch_embed.input_norm(patches.flatten(1), torch.float32).view(patches.shape)

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        grids, (side, _) = self.grids(arguments).cpu(), self.config.vision_config.merge_kernel_size
        layouts = [chunk_layout(*grid, side=side) for grid in grids.tolist()]
        heads = None
        if self.capture is not None:
            sizes = grids.prod(-1).tolist()
            row = self.capture.row(sizes, features[0])
            queries, keys = (self.whole(part).split(sizes, 1) for part in row)
            heads = zip(queries, keys, strict=True)
        return images_of_any_size(
            self, layouts, heads, lambda: chunk_pixels(self.normalised(arguments["pixel_values"]), grids)
        )


class GridThwsProcessor(PruningProcessor):
    """For models whose items hold their grid of patches under the name that Kimi's processors give it."""

    def patches(self, modality: str, item: Any) -> Sequence[PatchTokens]:
        return frames_of(self.info.get_hf_config(), item["pixel_values"].data, item["grid_thws"].data)


class KimiProcessor(GridThwsProcessor, kimi_k25.KimiK25MultiModalProcessor):
    pruned = ("vision_chunk",)


@MULTIMODAL_REGISTRY.register_processor(
    KimiProcessor, info=kimi_k25.KimiK25ProcessingInfo, dummy_inputs=kimi_k25.KimiK25DummyInputsBuilder
)
class PrunedKimiK25(PrunedKimi, kimi_k25.KimiK25ForConditionalGeneration, SupportsMRoPE):
    """vLLM's Kimi K2.5, pruned."""

    pruned = KimiProcessor.pruned
