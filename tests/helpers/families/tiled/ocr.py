"""Document readers: LightOn OCR, Qianfan-OCR, GOT-OCR 2 and DeepSeek-OCR 2."""

from typing import Any

import torch
import transformers
from transformers import (
    GotOcr2Config,
    GotOcr2VisionConfig,
    LightOnOcrConfig,
    PixtralVisionConfig,
    Qwen2Config,
    Qwen3Config,
)

from helpers.families.base import END, IMAGE, PATCH, START, ImageInputs, Size, decoder, tower
from helpers.families.common import CommonFamily
from helpers.families.internvl import TILE, InternVL
from helpers.families.llava import Llava
from helpers.families.mistral3 import Mistral3


class LightOnOcr(CommonFamily, Mistral3):
    """Mistral 3 with a different language model."""

    class_name = "LightOnOcrForConditionalGeneration"

    def config(self) -> Any:
        return LightOnOcrConfig(
            vision_config=PixtralVisionConfig(**tower(64)),
            text_config=Qwen3Config(**decoder(head_dim=8)),
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )


class QianfanOcr(CommonFamily, InternVL):
    class_name = "QianfanOCRForConditionalGeneration"

    def config(self) -> Any:
        return transformers.QianfanOCRConfig(
            vision_config=transformers.QianfanOCRVisionConfig(**tower(TILE)),
            text_config=Qwen3Config(**decoder(head_dim=8)),
            image_token_id=IMAGE,
            image_seq_length=9,
        )


class GotOcr2(CommonFamily, Llava):
    """A tower with windows and relative positions, and convolutions that merge 4 x 4 patches into one visual token.
    Each crop of an image counts as an image."""

    class_name = "GotOcr2ForConditionalGeneration"
    eager_tower = True
    side = 64

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.sizes = ((self.side, self.side),)

    def config(self) -> Any:
        vision = tower(
            self.side, mlp_dim=48, output_channels=16, window_size=6, global_attn_indexes=[0, 2], initializer_range=0.02
        )
        return GotOcr2Config(
            vision_config=GotOcr2VisionConfig(**vision),
            text_config=Qwen2Config(**decoder()),
            image_token_index=IMAGE,
            image_seq_length=16,
            tie_word_embeddings=False,
        )

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * (size[0] // PATCH // 4) ** 2, END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(1, 3, *size, generator=generator)}


class DeepseekOcr2(CommonFamily, Llava):
    """Crops, the whole image and a separator. Each is read by as many queries as there are patches after the
    convolutions of the tower."""

    class_name = "DeepseekOcr2ForConditionalGeneration"
    sizes = ((64, 128), (64, 64))  # two crops, no crop

    def config(self) -> Any:
        from transformers.models.deepseek_ocr2.configuration_deepseek_ocr2 import (
            DeepseekOcr2SamVisionConfig,
            DeepseekOcr2VisionEncoderConfig,
        )

        sam = DeepseekOcr2SamVisionConfig(
            **tower(64, mlp_dim=48, output_channels=16, window_size=6, global_attn_indexes=[0, 2]),
            downsample_channels=[16, 32],
        )
        encoder = DeepseekOcr2VisionEncoderConfig(**decoder(), use_sliding_window=False)
        text = decoder(
            n_routed_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            n_shared_experts=1,
            mlp_layer_types=["dense", "sparse"],
        )
        return transformers.DeepseekOcr2Config(
            vision_config=transformers.DeepseekOcr2VisionConfig(sam_config=sam, encoder_config=encoder),
            text_config=transformers.DeepseekOcr2TextConfig(**text),
            image_token_id=IMAGE,
        )

    def build(self, attention: Any = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        model = super().build(attention, seed, n_layers)
        if model.config.vision_config.sam_config.image_size == 64:  # the code would use more queries
            generator = torch.Generator().manual_seed(seed)
            queries = torch.nn.Embedding.from_pretrained(torch.randn(16, 32, generator=generator))
            model.model.vision_tower.query_768_resolution = queries
        return model

    def n_crops(self, size: Size) -> int:
        return 0 if size[1] == size[0] else size[1] // size[0]

    def block(self, size: Size) -> list[int]:
        return [IMAGE] * (16 * self.n_crops(size) + 16 + 1)

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        n_crops = self.n_crops(size)
        return {
            "pixel_values": torch.randn(1, 3, 64, 64, generator=generator),
            "pixel_values_local": torch.randn(n_crops, 3, 32, 32, generator=generator),
            "num_local_patches": torch.tensor([n_crops]),
        }

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        out = super().join(images, per_row)
        if not len(out["pixel_values_local"]):
            del out["pixel_values_local"]
        return out
