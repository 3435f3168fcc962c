"""Mistral Large 4, HY-V4-VL and dots3-note: an indexer scores all tokens, and a query attends to the best."""

from typing import Any

import torch
from torch import Tensor
from transformers import Dots3NoteConfig, HYV4VLConfig, MistralLarge4Config, PixtralVisionConfig
from transformers.models.dots3_note import modeling_dots3_note
from transformers.models.hy_v4_vl import modeling_hy_v4_vl
from transformers.models.mistral_large4 import modeling_mistral_large4

from helpers.families.base import EOS, IMAGE, PATCH, VIDEO, Family, ImageInputs, Size, decoder, tower
from helpers.families.common import CommonFamily
from helpers.families.mistral3 import Mistral3
from helpers.families.packed.mrope import MRope
from helpers.families.qwen_vl import MERGE, QwenVL
from helpers.families.sparse.ties import softplus_for_relu


def latent(**settings: Any) -> dict[str, Any]:
    """Return settings of decoders that keep one latent vector per token and attend to 10 tokens; the second layer has
    experts."""
    return decoder(
        num_key_value_heads=4,
        kv_lora_rank=16,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=24,
        index_topk=10,
        index_head_dim=8,
        index_n_heads=2,
        **settings,
    )


class MistralLarge4(CommonFamily, Mistral3):
    """The second layer attends to what the indexer of the first has chosen, and does not rotate."""

    class_name = "MistralLarge4ForConditionalGeneration"
    contract = "masking except ties"

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        """Return a model whose softmax scales differ from the defaults, at which transformers leaves them."""
        softplus_for_relu(modeling_mistral_large4)
        model = super().build(attention, seed, n_layers)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "softmax_scaling" in name:
                    parameter.fill_(0.5)
        return model

    def position_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return generate's position IDs: the model's own count padding, and queries are scaled by them."""
        return Family.position_ids(self, model, inputs)

    def oracle(self, model: Any, inputs: dict[str, Any], dropped: Tensor, position_ids: Tensor | None = None) -> Tensor:
        ids = self.position_ids(model, inputs) if position_ids is None else position_ids
        return super().oracle(model, inputs, dropped, ids)

    def config(self) -> Any:
        rope = {"rope_type": "default", "rope_theta": 10000.0}
        text = latent(
            num_hidden_layers=4, rope_parameters=rope, first_k_dense_replace=1, indexer_types=["full", "shared"] * 2
        )
        return MistralLarge4Config(
            vision_config=PixtralVisionConfig(**tower(64)),
            text_config={**text, "no_rope_layers": [1, 0] * 2, "kv_source_layers": [0, 1, 2, 3]},
            image_token_index=IMAGE,
        )


class HYV4VL(MRope):
    """A newline token ends every row of an image, and is one of its visual tokens."""

    class_name = "HYV4VLForConditionalGeneration"
    contract = "masking except ties"

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        softplus_for_relu(modeling_hy_v4_vl)
        return super().build("eager" if attention == "sdpa" else attention, seed, n_layers)

    def config(self) -> Any:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0]}
        vision = tower(0, spatial_merge_size=MERGE, out_hidden_size=32, max_image_size=64)
        del vision["image_size"]
        text = latent(q_lora_rank=16, head_dim=8, rope_parameters=rope, hc_mult=2, indexer_types=["full", "shared"] * 2)
        return HYV4VLConfig(vision_config=vision, text_config=text, **self.image_tokens())

    def image_tokens(self) -> dict[str, Any]:
        return {"image_token_id": IMAGE, "video_token_id": VIDEO}

    def block(self, size: Size) -> list[int]:
        t, h, w = self.grid(size)
        return [VIDEO if len(size) == 3 else IMAGE] * (t * (h // MERGE) * (w // MERGE + 1))

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        inputs = super().image_inputs(size, generator)
        return {name: value[:, : 3 * PATCH**2] if "pixel" in name else value for name, value in inputs.items()}


class Dots3Note(CommonFamily, QwenVL):
    """One layer with an indexer, and one with a sliding window and different heads."""

    class_name = "Dots3NoteForConditionalGeneration"
    contract = "masking except ties"
    volatile = ()

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        softplus_for_relu(modeling_dots3_note)
        return super().build(attention, seed, n_layers)

    def config(self) -> Any:
        vision = tower(
            0, adapter_in_dim=32, adapter_out_dim=32, mlp_layer_types=["dense"] * 2 + ["sparse"], num_local_experts=4
        )
        del vision["image_size"]
        text = latent(
            num_hidden_layers=4,
            q_lora_rank=16,
            head_dim=8,
            layer_types=["indexed_attention", "sliding_attention"] * 2,
            sliding_window=12,
            shared_experts_intermediate_size=24,
            **{f"swa_{name}": value for name, value in SLIDING.items()},
        )
        return Dots3NoteConfig(
            vision_config=vision,
            audio_config={
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "adapter_input_size": 32,
                "adapter_out_dim": 32,
            },
            text_config=text,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            audio_token_id=EOS,
        )

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        inputs = super().image_inputs(size, generator)
        return {name: value[:, : 3 * PATCH**2] if "pixel" in name else value for name, value in inputs.items()}

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {}


#: Settings of the layers with a sliding window.
SLIDING = {
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "head_dim": 16,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
