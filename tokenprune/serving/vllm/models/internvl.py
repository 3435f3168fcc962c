"""InternVL in transformers' and in its authors' format, Intern-S1 and Qianfan-OCR: square tiles, whose visual tokens
each combine 2 x 2 patches."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from vllm.model_executor.models import interns1, internvl, qianfan_ocr
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.elsewhere import misfit
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import equal_tiles
from tokenprune.tokens import Layout


class TileProcessor(PruningProcessor):
    """For models whose images are tiles of one size."""

    square = True

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        tile = tile_of(self.info.get_hf_config()).n_visual
        if n_visual == 0 or n_visual % tile:
            raise misfit(n_visual, f"a multiple of {tile}")
        return (n_visual,)


class InternVLProcessor(TileProcessor, interns1.InternS1MultiModalProcessor): ...


class InternVLChatProcessor(TileProcessor, internvl.InternVLMultiModalProcessor): ...


class QianfanOCRProcessor(TileProcessor, internvl.BaseInternVLMultiModalProcessor): ...


def tile_of(config: Any) -> Layout:
    """The layout of a tile."""
    vision, merge = config.vision_config, int(1 / config.downsample_ratio)
    height, width = both_sides(vision.image_size)
    patch_height, patch_width = both_sides(vision.patch_size)
    return Layout.squares(height // patch_height, width // patch_width, merge)


def both_sides(size: int | Sequence[int]) -> tuple[int, int]:
    """The (height, width); a square if the config has one number."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


@MULTIMODAL_REGISTRY.register_processor(
    InternVLProcessor, info=interns1.InternS1ProcessingInfo, dummy_inputs=interns1.InternS1DummyInputsBuilder
)
class PrunedInternVL(PrunedModel, interns1.InternS1ForConditionalGeneration, SupportsMRoPE):
    """vLLM's Intern-S1, which also runs InternVL, pruned."""

    def attention_module(self) -> Any:
        layers = self.vision_tower.encoder.layer
        return layers[self.attention_layer].attention.attn

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        tiles = arguments.get("image_num_patches")
        return {} if tiles is None else {"pixel_values": tiles.tolist()}

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        return equal_tiles(self, tile_of(self.config), features, arguments.get("pixel_values"))


class PrunedInternViT(PrunedModel):
    """Shared by models whose tower is vLLM's InternViT."""

    def attention_module(self) -> Any:
        layers = self.vision_model.encoder.layers
        return layers[self.attention_layer].attn.attn

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        tiles = arguments.get("image_num_patches")
        return {} if tiles is None else {"pixel_values_flat": tiles.tolist()}

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        return equal_tiles(self, tile_of(self.config), features, arguments.get("pixel_values_flat"))


@MULTIMODAL_REGISTRY.register_processor(
    InternVLChatProcessor, info=internvl.InternVLProcessingInfo, dummy_inputs=internvl.InternVLDummyInputsBuilder
)
class PrunedInternVLChat(PrunedInternViT, internvl.InternVLChatModel, SupportsMRoPE):
    """vLLM's InternVL in its authors' format, pruned. Its videos are not."""


@MULTIMODAL_REGISTRY.register_processor(
    QianfanOCRProcessor, info=qianfan_ocr.QianfanOCRProcessingInfo, dummy_inputs=internvl.BaseInternVLDummyInputsBuilder
)
class PrunedQianfanOCR(PrunedInternViT, qianfan_ocr.QianfanOCRForConditionalGeneration, SupportsMRoPE):
    """vLLM's Qianfan-OCR, pruned."""
