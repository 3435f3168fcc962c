"""Prompts about videos: as the processor takes them, or with their frames as several images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from transformers.video_utils import VideoMetadata

from tokenprune.adapters import ModelAdapter, adapter_for, families
from tokenprune.adapters.record import record_of
from tokenprune.errors import UnsupportedError
from tokenprune.evals.reading.videos import Clip
from tokenprune.prompts import encode_chat, tokenizer_options, user_prompt

#: Ticks per second of the clock that tells a processor when frames are shown.
TICKS = 1000


def takes_videos(processor: Any) -> bool:
    """Whether the processor takes videos. Otherwise their frames are several images of one prompt."""
    return getattr(processor, "video_processor", None) is not None


def encode_clips(processor: Any, clips: Sequence[Clip], questions: Sequence[str], **options: Any) -> Any:
    """The model's inputs for a batch of questions, each about one clip, padded on the left."""
    if not takes_videos(processor):
        return encode_chat(processor, [clip.frames for clip in clips], questions, **options)
    if options:
        raise UnsupportedError(f"{', '.join(options)}: resizes images, not videos. Leave out the baseline downsample")
    prompts = [_prompt(processor, question) for question in questions]
    return processor(
        videos=[list(clip.frames) for clip in clips],
        text=prompts,
        **tokenizer_options(processor, prompts[0]),
        padding=True,
        padding_side="left",
        return_tensors="pt",
        do_sample_frames=False,
        video_metadata=[_metadata(clip) for clip in clips],
    )


def adapter_for_clips(model: Any, processor: Any) -> type[ModelAdapter] | None:
    """The adapter with which a model is patched for prompts about clips; None for the registered one."""
    where = None if takes_videos(processor) else record_of(model.config.model_type).frames
    if where is None:
        return None
    module, name = where.split(":")
    of_frames = getattr(import_module(f"{families.__name__}.{module}"), name)
    return of_frames if issubclass(of_frames, type(adapter_for(model))) else None  # not in place of a user's own


def placeholder_ids(config: Any) -> list[int]:
    """The placeholder tokens that become visual tokens, of images and, if there are any, of videos. A processor's own
    `image_token_id` may be the marker that a chat template writes for an image, as in Gemma 3 and Llama 4."""
    ids = (getattr(config, f"{name}_token_id", None) for name in ("image", "video"))
    return [token for token in ids if token is not None]


def _prompt(processor: Any, question: str) -> str:
    return user_prompt(processor, [{"type": "video"}, {"type": "text", "text": question}])


def _metadata(clip: Clip) -> VideoMetadata:
    width, height = clip.frames[0].size
    return VideoMetadata(
        total_num_frames=max(1, round(clip.duration * TICKS)),
        fps=TICKS,
        width=width,
        height=height,
        duration=clip.duration,
        frames_indices=[round(time * TICKS) for time in clip.times],
    )
