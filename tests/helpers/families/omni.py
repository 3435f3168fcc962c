"""The thinkers of Qwen2.5-Omni and Qwen3-Omni: seconds in position IDs, and audio, which stays."""

from typing import Any

import torch

from .base import VOCAB, ImageInputs, Size
from .qwen_vl import MRope

AUDIO, AUDIO_START, AUDIO_END = VOCAB, VOCAB + 1, VOCAB + 2
MELS = 8


class Qwen2_5Omni(MRope):
    """Every layer of the tower but one attends within windows; queries and keys are projected separately."""

    typed = False

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        inputs = super().image_inputs(size, generator)
        return {**inputs, "video_second_per_grid": torch.tensor([0.5])} if len(size) == 3 else inputs

    def with_audio(self, inputs: dict[str, Any], n_frames: int = 10) -> dict[str, Any]:
        """Return the prompt with a piece of audio before each row's last token."""
        n_rows = len(inputs["input_ids"])
        sound = torch.tensor([AUDIO_START, *[AUDIO] * self.n_audio(n_frames), AUDIO_END]).expand(n_rows, -1)
        ids = torch.cat([inputs["input_ids"][:, :-1], sound, inputs["input_ids"][:, -1:]], 1)
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(sound)], 1)
        features = torch.randn(
            n_rows, MELS, n_frames, generator=torch.Generator(torch.get_default_device()).manual_seed(7)
        )
        frames = torch.ones(n_rows, n_frames, dtype=torch.long)
        audio = {"input_features": features, "feature_attention_mask": frames}
        return {**inputs, "input_ids": ids, "attention_mask": mask, **audio}

    def n_audio(self, n_frames: int) -> int:
        """Return the number of audio tokens, after two strides of two."""
        return ((n_frames - 1) // 2 + 1 - 2) // 2 + 1


class Qwen3Omni(Qwen2_5Omni):
    """Experts, and features of two tower layers that are added again after decoder layers."""

    def n_audio(self, n_frames: int) -> int:
        """Return the number of audio tokens, after three strides of two."""
        for _ in range(3):
            n_frames = (n_frames - 1) // 2 + 1
        return n_frames
