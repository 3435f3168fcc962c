"""Nemotron Nano VL and Nemotron Omni: square tiles or images of any size, whose visual tokens each combine 2 x 2
patches, before a language model that reads no position IDs. Audio is not pruned, and videos only by vLLM."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor
from vllm.model_executor.models import nano_nemotron_vl
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.towers.from_config import tower_of_config
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import equal_tiles, images_of_any_size
from tokenprune.tokens import Layout


class NemotronProcessor(PruningProcessor, nano_nemotron_vl.NanoNemotronVLMultiModalProcessor):
    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """Process a prompt. If it uses the sound of its videos (`use_audio_in_video`), vLLM skips the step that checks
        the options of other prompts."""
        self.settings.check_options(inputs.hf_processor_mm_kwargs, request=True)
        return super().apply(inputs, timing_ctx)


@MULTIMODAL_REGISTRY.register_processor(
    NemotronProcessor,
    info=nano_nemotron_vl.NanoNemotronVLProcessingInfo,
    dummy_inputs=nano_nemotron_vl.NanoNemotronVLDummyInputsBuilder,
)
class PrunedNemotron(PrunedModel, nano_nemotron_vl.NemotronH_Nano_VL_V2, SupportsMRoPE):
    """vLLM's Nemotron Nano VL, with which it also runs Nemotron Omni, pruned. Its tower gets images of any size in one
    row, each after its class and register tokens, and tiles in a batch."""

    def recompute_mrope_positions(
        self, *, multimodal_embeddings: Sequence[Tensor], mrope_positions: Tensor, **_: Any
    ) -> tuple[Sequence[Tensor], Tensor, int]:
        """What vLLM asks for after it has pruned a video (`--video-pruning-rate`): the position IDs go on counting
        tokens, as the language model reads none."""
        return multimodal_embeddings, mrope_positions, 0

    def attention_module(self) -> Any:
        if hasattr(self.vision_model, "model"):  # up to vLLM 0.33
            return self.vision_model.model.encoder.layers[self.attention_layer].attn.attn
        return self.vision_model.encoder.layer[self.attention_layer].attention.attn

    def normed(self, image: Real[Tensor, "channels height width"]) -> Float[Tensor, "channels height width"]:
        norm = getattr(self, "input_norm", None)  # from vLLM 0.34 on
        return image if norm is None else norm(image.reshape(1, -1), torch.float32).view(image.shape)

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        tiles = arguments.get("image_num_patches")
        return {} if tiles is None else {"pixel_values_flat": tiles.tolist()}

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        patch, merge = self.patch_size, round(1 / self.downsample_ratio)
        if not self.dynamic_resolution:
            side = self.config.force_image_size // patch
            return equal_tiles(self, Layout.squares(side, side, merge), features, arguments["pixel_values_flat"])
        grids = [(height // patch, width // patch) for height, width in arguments["imgs_sizes"]]
        layouts = [Layout.squares(rows, columns, merge) for rows, columns in grids]
        heads = None
        if self.capture is not None:
            n_prefix = tower_of_config(self.config).n_prefix
            lengths = [n_prefix + rows * columns for rows, columns in grids]
            queries, keys = (part[0].split(lengths, 1) for part in self.capture.heads())
            heads = zip(queries, keys, strict=True)
        return images_of_any_size(self, layouts, heads, lambda: map(self.normed, arguments["pixel_values_flat"]))
