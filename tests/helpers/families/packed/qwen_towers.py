"""Qwen2.5-VL's tower in front of language models whose position IDs count tokens: EXAONE 4.5, HyperCLOVA X."""

from typing import Any

from transformers import Exaone4_5_Config, HyperCLOVAXVisionV2Config

from helpers.families.base import IMAGE, NO_EMBEDS, PATCH, VIDEO, decoder
from helpers.families.common import CommonFamily
from helpers.families.qwen_vl import MERGE, PackedImages


class Exaone4_5(CommonFamily, PackedImages):
    """Windows in the decoder and in the tower, whose queries share keys."""

    class_name = "Exaone4_5_ForConditionalGeneration"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cannot["embedded"] = NO_EMBEDS

    def tower(self, **settings: Any) -> Any:
        windows = {"window_size": 2 * MERGE * PATCH, "fullatt_block_indexes": [1]}
        return self.vision(**windows, out_hidden_size=32, **settings)

    def tokens(self) -> Any:
        return {"image_token_id": IMAGE, "video_token_id": VIDEO}

    def config(self) -> Any:
        kinds = ["sliding_attention", "full_attention"]
        text = decoder(model_type="exaone4", sliding_window=12, sliding_window_pattern=2, layer_types=kinds)
        vision = self.tower(num_key_value_heads=2)
        return Exaone4_5_Config(vision_config=vision, text_config=text, **self.tokens())


class HyperClovaX(Exaone4_5):
    class_name = "HyperCLOVAXVisionV2ForConditionalGeneration"

    def config(self) -> Any:
        text = decoder(model_type="hyperclovax", head_dim=8)
        vision = self.tower(model_type="qwen2_5_vl_vision")
        return HyperCLOVAXVisionV2Config(
            vision_config=vision, text_config=text, tie_word_embeddings=False, **self.tokens()
        )
