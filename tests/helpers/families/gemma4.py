"""Gemma 4: images and videos of any shape, padded to the same number of patches; with and without a vision encoder."""

from typing import Any

import torch
from torch import Tensor
from transformers import Gemma4Config, Gemma4UnifiedConfig

from .base import BREAK, END, IMAGE, PATCH, START, VIDEO, ImageInputs, Size, decoder, tower
from .common import CommonFamily
from .gemma import NO_EMBEDS

POOL = 2  # patches side by side that make one visual token
MOST = 16  # visual tokens per image, to which all are padded


class Gemma4(CommonFamily):
    """Each layer has token embeddings in addition to the hidden states, and the last two layers read the keys and
    values of the first two."""

    class_name = "Gemma4ForConditionalGeneration"
    sizes = ((24, 32), (40, 24), (32, 32))  # 3 x 4, 5 x 3 and 4 x 4 visual tokens
    video_sizes = ((2, 24, 16), (3, 16, 16))  # 2 frames of 3 x 2, 3 of 2 x 2

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cannot["embedded"] = NO_EMBEDS

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        """Queries and keys are normalised without a scale: with weights of 1, all attention would go to one token, and
        rounding would decide which one."""
        model = super().build(attention, seed, n_layers)
        layers: Any = self.language_model(model).get_submodule("layers")
        with torch.no_grad():
            for layer in layers:
                layer.self_attn.q_norm.weight.fill_(0.5)
        return model

    def text(self) -> dict[str, Any]:
        """Return settings with a larger epsilon: with the usual one, norms of nearly zero states enlarge rounding to
        2e-5."""
        return decoder(
            num_hidden_layers=4,
            head_dim=8,
            global_head_dim=16,
            layer_types=["sliding_attention", "full_attention"] * 2,
            sliding_window=12,
            num_kv_shared_layers=2,
            rms_norm_eps=1e-3,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=96,
        )

    def config(self) -> Any:
        vision = tower(0, head_dim=8, num_key_value_heads=4, pooling_kernel_size=POOL, position_embedding_size=16)
        del vision["image_size"]
        return Gemma4Config(vision_config=vision, audio_config=None, text_config=self.text(), **self.tokens())

    def tokens(self) -> dict[str, Any]:
        return {
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
            "audio_token_id": None,
            "boi_token_id": START,
            "eoi_token_id": END,
        }

    @property
    def side(self) -> int:
        """The length in pixels of a row of the model's pixel input."""
        return PATCH

    def block(self, size: Size) -> list[int]:
        *frames, height, width = size
        n_visual = (height // PATCH // POOL) * (width // PATCH // POOL)
        frame = [START, *[VIDEO if frames else IMAGE] * n_visual, END]
        timestamp = BREAK
        return [timestamp, *frame] * frames[0] if frames else frame

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        *frames, height, width = size
        rows, columns = height // self.side, width // self.side
        n_rows = MOST * (POOL * PATCH // self.side) ** 2
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(1)
        places = torch.cat([places, torch.full((n_rows - len(places), 2), -1)])
        pixels = torch.rand(*frames or [1], n_rows, 3 * self.side**2, generator=generator)
        pixels[:, rows * columns :] = 0
        if not frames:
            return {"pixel_values": pixels, "image_position_ids": places[None]}
        return {
            "pixel_values_videos": pixels,
            "video_position_ids": places.expand(*frames, -1, -1),
            "num_frames_per_video": torch.tensor(frames),
        }

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": ((ids == IMAGE) + 2 * (ids == VIDEO)).int()}


class Gemma4MoE(Gemma4):
    """Like the large models: experts, keys as values, and images that attend to all of themselves."""

    def text(self) -> dict[str, Any]:
        return decoder(
            num_hidden_layers=4,
            head_dim=8,
            global_head_dim=16,
            layer_types=["sliding_attention", "full_attention"] * 2,
            sliding_window=12,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            use_bidirectional_attention="vision",
            hidden_size_per_layer_input=0,
            enable_moe_block=True,
            num_experts=4,
            top_k_experts=2,
            moe_intermediate_size=24,
        )


class Gemma4Unified(Gemma4):
    """No vision encoder: the pixels of each visual token are projected."""

    class_name = "Gemma4UnifiedForConditionalGeneration"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # For a static cache, generate makes causal masks on layers of full attention, unlike the model itself.
        self.cannot["static"] = (AssertionError, "logits differ")

    def text(self) -> dict[str, Any]:
        return decoder(
            num_hidden_layers=4,
            head_dim=8,
            global_head_dim=16,
            layer_types=["sliding_attention", "full_attention"] * 2,
            sliding_window=12,
            num_global_key_value_heads=1,
            use_bidirectional_attention="vision",
        )

    def config(self) -> Any:
        vision = {
            "patch_size": PATCH,
            "pooling_kernel_size": POOL,
            "mm_embed_dim": 32,
            "mm_posemb_size": 16,
            "output_proj_dims": 32,
        }
        return Gemma4UnifiedConfig(vision_config=vision, audio_config=None, text_config=self.text(), **self.tokens())

    @property
    def side(self) -> int:
        return PATCH * POOL
