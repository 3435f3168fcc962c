"""DeepSeek-OCR and Unlimited-OCR: the crops of an image as one canvas, the whole image, and a separator, with newline
tokens."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from vllm.model_executor.models import deepseek_ocr, unlimited_ocr
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.unlimited_ocr import canvas_and_whole
from tokenprune.encoded import EncodedImage
from tokenprune.errors import SettingError
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import images_of_crops
from tokenprune.tokens import Layout

#: The sides of a patch in pixels, and of a visual token in patches.
PATCH, MERGE = 16, 4
Grid = Int[Tensor, "2"]
Whole = Float[Tensor, "... 3 side side"]
Crops = Float[Tensor, "crops 3 part part"]


def layout_of(grid: Grid, whole: Whole, crops: Crops) -> Layout:
    """The layout of an image, given how many (columns, rows) of crops it has, and its pixels and theirs. An image in a
    grid of 1 x 1 has no crops."""
    columns, rows = grid.tolist() if grid.prod() > 1 else (0, 0)
    return canvas_and_whole(rows, columns, side_of(crops) if rows else 0, side_of(whole))


def side_of(tiles: Whole) -> int:
    """The side of a tile in visual tokens."""
    return -(-(tiles.shape[-1] // PATCH) // MERGE)


class CropsProcessor(PruningProcessor):
    """Shared with DeepSeek-OCR 2. vLLM counts the visual tokens of an image by its size alone.

    layout_of: returns the layout of an image.
    """

    layout_of = staticmethod(layout_of)

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        pixels = (item[name].data for name in ("images_spatial_crop", "pixel_values", "images_crop"))
        made = self.layout_of(*pixels).n_visual
        if made != n_visual:  # the engine would fail
            raise SettingError(
                f"mm_processor_kwargs: an image would have {made} visual tokens, but vLLM counts {n_visual}. Leave out "
                f"options that cut images in another way, such as base_size, crop_mode and max_crops."
            )
        return (n_visual,)


class DeepseekOCRProcessor(CropsProcessor, deepseek_ocr.DeepseekOCRMultiModalProcessor): ...


class UnlimitedOCRProcessor(CropsProcessor, unlimited_ocr.UnlimitedOCRMultiModalProcessor):
    def _get_mm_hashes(self, inputs: Any) -> Any:
        """vLLM cuts crops from an image only if it is alone in its prompt, which its own hashes do not say."""
        hashes = super()._get_mm_hashes(inputs)
        if len(hashes.get("image", ())) > 1:
            hashes["image"] = [f"{one}-uncropped" for one in hashes["image"]]
        return hashes


class PrunedCrops(PrunedModel):
    """A model whose images are crops and a whole. Shared with DeepSeek-OCR 2.

    layout_of: the processor's.
    """

    layout_of = staticmethod(layout_of)

    def captured(self) -> Sequence[tuple[Tensor, ...]]:
        """What was captured of every tile, in the order in which the tower got them."""
        assert self.capture is not None
        return self.capture.by_tile()

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return {"images_crop": [layout.n_tiles - 1 for layout in self.layouts_of(arguments)]}

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        layouts, needs = self.layouts_of(arguments), self.settings.strategy.needs
        pixels = [*arguments["pixel_values"], *arguments["images_crop"]]
        tiles: dict[str, list[Any]] = dict.fromkeys(needs & {"pixels", "colors"}, pixels)
        if self.capture is not None:
            tiles["vision_attention"] = wholes_first(self.captured(), layouts)
        return images_of_crops(self, layouts, tiles)

    def layouts_of(self, arguments: Mapping[str, Any]) -> list[Layout]:
        """The layouts of the images in a call of `embed_multimodal`."""
        grids, wholes, crops = (arguments[name] for name in ("images_spatial_crop", "pixel_values", "images_crop"))
        return [self.layout_of(grid, wholes, crops) for grid in grids]


class PrunedSecondEncoder(PrunedCrops):
    """Attention is that of the second encoder, which has one patch per visual token."""

    def attention_module(self) -> Any:
        layers = self.vision_model.transformer.layers
        return layers[self.attention_layer].self_attn.attn


@MULTIMODAL_REGISTRY.register_processor(
    DeepseekOCRProcessor,
    info=deepseek_ocr.DeepseekOCRProcessingInfo,
    dummy_inputs=deepseek_ocr.DeepseekOCRDummyInputsBuilder,
)
class PrunedDeepseekOCR(PrunedSecondEncoder, deepseek_ocr.DeepseekOCRForCausalLM, SupportsMRoPE):
    """vLLM's DeepSeek-OCR, pruned."""


@MULTIMODAL_REGISTRY.register_processor(
    UnlimitedOCRProcessor,
    info=unlimited_ocr.UnlimitedOCRProcessingInfo,
    dummy_inputs=deepseek_ocr.DeepseekOCRDummyInputsBuilder,
)
class PrunedUnlimitedOCR(PrunedSecondEncoder, unlimited_ocr.UnlimitedOCRForCausalLM, SupportsMRoPE):
    """vLLM's Unlimited-OCR, pruned. Its answer's tokens attend to the prompt as it is pruned, and to a window of the
    answer."""


def wholes_first(tiles: Iterable[Any], layouts: Sequence[Layout]) -> list[Any]:
    """What was captured of all whole images and then of all crops. The tower gets each image and then its crops."""
    each = iter(tiles)
    images = [list(islice(each, layout.n_tiles)) for layout in layouts]
    return [*(whole for whole, *_ in images), *(crop for _, *crops in images for crop in crops)]
