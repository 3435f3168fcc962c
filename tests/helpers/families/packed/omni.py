"""The thinkers of Qwen2.5-Omni and Qwen3-Omni: seconds in position IDs, and audio, which stays."""

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5OmniThinkerConfig, Qwen3OmniMoeThinkerConfig

from helpers.families.base import PATCH, VOCAB, ImageInputs, Size, decoder
from helpers.families.packed.mrope import MRope
from helpers.families.qwen_vl import MERGE

AUDIO, AUDIO_START, AUDIO_END, N_TOKENS = VOCAB, VOCAB + 1, VOCAB + 2, VOCAB + 3
MELS = 8


class Qwen2_5Omni(MRope):
    """Every layer of the tower but one attends within windows; queries and keys are projected separately."""

    class_name = "Qwen2_5OmniThinkerForConditionalGeneration"

    def tokens(self) -> Any:
        audio = {"audio_token_index": AUDIO, "audio_start_token_id": AUDIO_START, "audio_end_token_id": AUDIO_END}
        visual = {name.replace("_token_id", "_token_index"): token for name, token in super().tokens().items()}
        starts = {name: token for name, token in super().tokens().items() if name.startswith("vision")}
        return {**visual, **starts, **audio}

    def audio(self, **settings: Any) -> Any:
        layers = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "d_model": 16}
        return {**layers, "num_mel_bins": MELS, "max_source_positions": 32, "n_window": 4, "output_dim": 32, **settings}

    def text(self, **settings: Any) -> Any:
        return {**super().text(**settings), "vocab_size": N_TOKENS}

    def config(self) -> Any:
        vision = self.vision(window_size=2 * MERGE * PATCH, fullatt_block_indexes=[1], out_hidden_size=32)
        return Qwen2_5OmniThinkerConfig(
            vision_config=vision, text_config=self.text(), audio_config=self.audio(), **self.tokens()
        )

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        inputs = super().image_inputs(size, generator)
        return {**inputs, "video_second_per_grid": torch.tensor([0.5])} if len(size) == 3 else inputs

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {}

    def with_audio(self, inputs: dict[str, Any], n_frames: int = 10) -> dict[str, Any]:
        """Return the prompt with a piece of audio before each row's last token."""
        n_rows = len(inputs["input_ids"])
        sound = torch.tensor([AUDIO_START, *[AUDIO] * self.n_audio(n_frames), AUDIO_END]).expand(n_rows, -1)
        ids = torch.cat([inputs["input_ids"][:, :-1], sound, inputs["input_ids"][:, -1:]], 1)
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(sound)], 1)
        features = torch.randn(n_rows, MELS, n_frames, generator=torch.Generator().manual_seed(7))
        frames = torch.ones(n_rows, n_frames, dtype=torch.long)
        audio = {"input_features": features, "feature_attention_mask": frames}
        return {**inputs, "input_ids": ids, "attention_mask": mask, **audio}

    def n_audio(self, n_frames: int) -> int:
        """Return the number of audio tokens, after two strides of two."""
        return ((n_frames - 1) // 2 + 1 - 2) // 2 + 1


class Qwen3Omni(Qwen2_5Omni):
    """Experts, and features of two tower layers that are added again after decoder layers."""

    class_name = "Qwen3OmniMoeThinkerForConditionalGeneration"

    def tokens(self) -> Any:
        return {name.replace("_token_index", "_token_id"): token for name, token in super().tokens().items()}

    def config(self) -> Any:
        vision = self.vision(out_hidden_size=32, num_position_embeddings=64, deepstack_visual_indexes=[0, 1])
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        text = decoder(rope_parameters=rope, head_dim=8, vocab_size=N_TOKENS, **experts)
        audio = self.audio(n_window=50, n_window_infer=100, conv_chunksize=8, downsample_hidden_size=4)
        return Qwen3OmniMoeThinkerConfig(vision_config=vision, text_config=text, audio_config=audio, **self.tokens())

    def n_audio(self, n_frames: int) -> int:
        """Return the number of audio tokens, after three strides of two."""
        for _ in range(3):
            n_frames = (n_frames - 1) // 2 + 1
        return n_frames
