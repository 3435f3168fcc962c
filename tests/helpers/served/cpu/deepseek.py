"""How vLLM builds a tiny DeepSeek-OCR, DeepSeek-OCR 2 or Unlimited-OCR: it has the published sizes in its code."""

# pyright: reportMissingImports=false

from functools import cache, partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn

#: The sides of a whole image and of a crop in pixels, and the number of their visual tokens in DeepSeek-OCR 2.
WHOLE, CROP, N_WHOLE, N_CROP = 256, 128, 16, 4
#: The second encoder, and that of DeepSeek-OCR 2.
CLIP: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2}
CLIP |= {"image_size": 56, "patch_size": 14, "projection_dim": 64, "layer_norm_eps": 1e-5}
QWEN2 = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 96}
WIDTH, N_LAYERS = 64, 24


@cache
def shrink_deepseek_ocr() -> None:
    """Make vLLM build small encoders, and cut images into small crops."""
    from vllm.model_executor.models import deepencoder2, deepseek_ocr, deepseek_ocr2, unlimited_ocr
    from vllm.model_executor.models.deepencoder import ImageEncoderViT
    from vllm.transformers_utils.processors.deepseek_ocr import count_tiles

    # The first of two layers attends within windows of 6 x 6 patches.
    small = partial(
        ImageEncoderViT,
        embed_dim=64,
        depth=2,
        num_heads=2,
        mlp_ratio=1.5,
        window_size=6,
        img_size=WHOLE,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        global_attn_indexes=(1,),
        out_chans=256,
        last_conv_output=64,
    )

    class SmallReader(deepencoder2.Qwen2Decoder2Encoder):
        """vLLM's takes only the published numbers of patches."""

        def __init__(self) -> None:
            super().__init__(N_LAYERS, WIDTH, **QWEN2)
            self.query_768, self.query_1024 = nn.Embedding(N_CROP, WIDTH), nn.Embedding(N_WHOLE, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            patches = x.flatten(2).transpose(1, 2)
            queries = self.query_768 if patches.shape[1] == N_CROP else self.query_1024
            both = torch.cat([patches, queries.weight.expand(len(patches), -1, -1)], 1)
            return self.model(both, None)[0][:, patches.shape[1] :]

    def n_tokens(self: Any, *, image_width: int, image_height: int, cropping: bool = True) -> int:
        size = image_width, image_height
        columns, rows = count_tiles(*size, image_size=CROP) if max(size) > CROP else (0, 0)
        return columns * rows * N_CROP + N_WHOLE + 1

    modules: Any = (deepseek_ocr, deepseek_ocr2, unlimited_ocr)
    for module in modules:
        module.BASE_SIZE, module.IMAGE_SIZE = WHOLE, CROP
    one, two, _ = modules
    one.build_sam_vit_b, one.CLIPVisionConfig = small, lambda **_: transformers.CLIPVisionConfig(**CLIP)
    two.ImageEncoderViT, two.build_qwen2_decoder_as_encoder = lambda **_: small(), SmallReader
    two.DeepseekOCR2ProcessingInfo.get_num_image_tokens = n_tokens
