"""How transformers gets the inputs of a tiny DeepSeek-OCR, and how vLLM builds one: it has the published sizes in its
code."""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from helpers.served.converted.deepseek import (
    CHANNELS,
    CLIP,
    CROP,
    GLOBAL_LAYERS,
    N_CROP,
    N_WHOLE,
    QWEN2,
    SAM,
    WHOLE,
    own_model,
)
from helpers.served.models import IMAGE
from helpers.served.reference import CONVERTED

#: Settings that vLLM's encoder takes under the same names.
SHARED = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


class Reader:
    """Prepares prompts and pixels for the tests' own model as vLLM's processor does."""

    def __init__(self, words: Any, kind: str) -> None:
        self.tokenizer, self.kind = words, kind

    def __call__(self, text: list[str], images: Any = None, **options: Any) -> transformers.BatchFeature:
        from vllm.transformers_utils.processors.deepseek_ocr import DeepseekOCRProcessor
        from vllm.transformers_utils.processors.unlimited_ocr import UnlimitedOCRProcessor

        (prompt,), made = text, {}
        if images:
            theirs = UnlimitedOCRProcessor if self.kind == "unlimited" else DeepseekOCRProcessor
            sizes: dict[str, Any] = {"image_size": CROP, "base_size": WHOLE}
            sizes |= {"strategy": "v2"} if self.kind == "ocr2" else {}
            sizes |= {"max_crops": 32} if self.kind == "unlimited" else {}
            found = theirs(self.tokenizer, **sizes)(prompt=prompt, images=list(images))
            grids, crops = found["images_spatial_crop"], found["images_crop"]
            counts = torch.where(grids.prod(-1) > 1, grids.prod(-1), 0)
            made = {"pixel_values": found["pixel_values"], "num_local_patches": counts}
            made |= {"pixel_values_local": crops} if len(crops) else {}
            made |= {"patches_grid": grids} if self.kind != "ocr2" else {}
            for n in found["num_image_tokens"].tolist():
                prompt = prompt.replace(IMAGE, " ".join(["<visual>"] * n), 1)
        ids = self.tokenizer(prompt.replace("<visual>", IMAGE), return_tensors="pt", add_special_tokens=False)
        return transformers.BatchFeature({"input_ids": ids["input_ids"], **made})


def load_deepseek_ocr(folder: Path) -> tuple[Any, Any]:
    """Return the tests' own model of a checkpoint, and its processor."""
    arguments = json.loads((folder / CONVERTED / "arguments.json").read_text())
    model = own_model(**arguments)
    model.load_state_dict(load_file(folder / CONVERTED / "model.safetensors"))
    return model, Reader(transformers.PreTrainedTokenizerFast.from_pretrained(folder), arguments["kind"])


@cache
def shrink_deepseek_ocr() -> None:
    """Make vLLM build small encoders, and cut images into small crops."""
    from vllm.model_executor.models import deepencoder2, deepseek_ocr, deepseek_ocr2, unlimited_ocr
    from vllm.model_executor.models.deepencoder import ImageEncoderViT
    from vllm.transformers_utils.processors.deepseek_ocr import count_tiles

    first, _, last = CHANNELS
    names = {"hidden_size": "embed_dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads"}
    small = partial(
        ImageEncoderViT,
        **{names.get(name, name): value for name, value in SAM.items()},
        img_size=WHOLE,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        global_attn_indexes=GLOBAL_LAYERS,
        out_chans=first,
        last_conv_output=last,
    )

    class SmallReader(deepencoder2.Qwen2Decoder2Encoder):
        """vLLM's takes only the published numbers of patches."""

        def __init__(self) -> None:
            settings = {name: value for name, value in QWEN2.items() if name in SHARED}
            super().__init__(QWEN2["num_hidden_layers"], QWEN2["hidden_size"], **settings)
            width = QWEN2["hidden_size"]
            self.query_768, self.query_1024 = nn.Embedding(N_CROP, width), nn.Embedding(N_WHOLE, width)

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
