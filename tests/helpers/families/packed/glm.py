"""GLM-4.1V and its successors: a frame of a video is written with the placeholder tokens of an image."""

from typing import Any

import transformers
from torch import Tensor

from helpers.families.base import BREAK, END, IMAGE, PATCH, START, VIDEO, VOCAB, Family, Size, decoder
from helpers.families.packed.mrope import MRope
from helpers.families.qwen_vl import MERGE
from helpers.families.sparse.ties import softplus_for_relu

VIDEO_START, VIDEO_END, N_TOKENS = VOCAB, VOCAB + 1, VOCAB + 2


class Glm4v(MRope):
    """Positions rotate neighbouring pairs of numbers in half of each head."""

    class_name = "Glm4vForConditionalGeneration"
    config_name = "Glm4vConfig"
    mixes = False

    def tokens(self) -> Any:
        return {
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
            "image_start_token_id": START,
            "image_end_token_id": END,
            "video_start_token_id": VIDEO_START,
            "video_end_token_id": VIDEO_END,
        }

    def text(self, **settings: Any) -> Any:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.5}
        return decoder(rope_parameters=rope, vocab_size=N_TOKENS, **settings)

    def config(self) -> Any:
        vision = self.vision(out_hidden_size=32, image_size=8 * PATCH)
        kind = getattr(transformers, self.config_name)
        return kind(vision_config=vision, text_config=self.text(), **self.tokens())

    def block(self, size: Size) -> list[int]:
        t, h, w = self.grid(size)
        frame = [START, *[IMAGE] * (h * w // MERGE**2), END]
        timestamp = BREAK
        return [VIDEO_START, *[*frame, timestamp] * t, VIDEO_END] if len(size) == 3 else frame

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        in_video = (ids == VIDEO_START).cumsum(1) > (ids == VIDEO_END).cumsum(1)
        return {"mm_token_type_ids": ((ids == IMAGE) * (1 + in_video.int())).int()}

    def repeats_rows(self) -> bool:
        return False


class Glm46V(Glm4v):
    class_name = "Glm46VForConditionalGeneration"
    config_name = "Glm46VConfig"


class Glmga(Glm46V):
    """The class of GLM-4.6V under another configuration."""

    config_name = "GlmgaConfig"


class GlmMoe(Glm4v):
    """One layer without experts, then one with experts."""

    class_name = "Glm4vMoeForConditionalGeneration"
    config_name = "Glm4vMoeConfig"

    def text(self, **settings: Any) -> Any:
        experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        return super().text(**experts, first_k_dense_replace=1, **settings)


class GlmOcr(Glm4v):
    """The tower normalises its queries and keys."""

    class_name = "GlmOcrForConditionalGeneration"
    config_name = "GlmOcrConfig"


class Glm5Next(Glm4v):
    """One layer with a state, and two that attend to two pools of 4 keys and the incomplete last one; the second uses
    the pools that the first has chosen. No layer uses positions."""

    class_name = "Glm5NextForConditionalGeneration"
    config_name = "Glm5NextConfig"
    contract = "never seen"
    volatile = ()
    numbered = False

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        from transformers.models.glm5_next import modeling_glm5_next

        softplus_for_relu(modeling_glm5_next)
        return super().build(attention, seed, n_layers)

    def text(self, **settings: Any) -> Any:
        return decoder(
            vocab_size=N_TOKENS,
            num_hidden_layers=3,
            num_key_value_heads=4,
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_nope_head_dim=8,
            v_head_dim=8,
            n_routed_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            index_topk=8,
            index_kpool=4,
            index_head_dim=8,
            index_n_heads=2,
            linear_head_dim=8,
            linear_num_heads=4,
            hc_mult=2,
            layer_types=["linear_attention", "indexed_attention", "indexed_attention"],
            mlp_layer_types=["dense", "sparse", "sparse"],
            indexer_types=["full", "full", "shared", "full"],
            **settings,
        )

    def config(self) -> Any:
        vision = self.vision(out_hidden_size=32, projection_intermediate_size=48)
        return transformers.Glm5NextConfig(vision_config=vision, text_config=self.text(), **self.tokens())

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        return Family.position_ids(self, model, inputs)
