"""Families whose images and videos come as one row of patches, with a grid for each, like Qwen-VL's."""

from typing import Any

import torch
from torch import Tensor

from .base import BREAK, DIFFER, END, IMAGE, NO_EMBEDS, PATCH, START, VIDEO, VOCAB, ImageInputs, Size, additive
from .common import CommonFamily
from .qwen_vl import MERGE, MRope, PackedImages

#: Marks around a video that no text and no answer has.
VIDEO_START, VIDEO_END = VOCAB, VOCAB + 1
#: As in VideoLLaMA 3's processors: an image's patches are not merged, those of a video are merged two by two.
IMAGE_MERGE, VIDEO_MERGE = 1, 2


class FramesAlone(CommonFamily, PackedImages):
    """LLaVA-OneVision 1.5, whose tower sees every frame of a video by itself, without merging it with another."""

    per_step = 1
    typed = True
    video_sizes = ((2, 32, 24), (3, 24, 24))  # 2 frames of 4 x 3 visual tokens, 3 of 3 x 3


class Ovis25(FramesAlone):
    """One layer of the tower attends within windows of 2 x 2 visual tokens. The marks around images and videos become
    embeddings from the visual vocabulary."""

    video_marks = (VIDEO_START, VIDEO_END)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cannot["embedded"] = NO_EMBEDS


class VideoLlama3(CommonFamily, PackedImages):
    """A timestamp before every frame of a video. Every image and video has its own number of patches per visual
    token."""

    per_step = 1
    sizes = ((16, 16), (24, 16), (12, 20))  # 4 x 4, 6 x 4 and 3 x 5 visual tokens
    video_sizes = ((2, 32, 24), (3, 24, 24))  # 2 frames of 4 x 3, 3 of 3 x 3

    def block(self, size: Size) -> list[int]:
        t, h, w = self.grid(size)
        if len(size) == 2:
            return [IMAGE] * (h * w // IMAGE_MERGE**2)
        timestamp = BREAK
        return [timestamp, *[VIDEO] * (h * w // VIDEO_MERGE**2)] * t

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        inputs = super().image_inputs(size, generator)
        if len(size) == 2:
            return {**inputs, "image_merge_sizes": torch.tensor([IMAGE_MERGE])}
        n_visual = int(inputs["video_grid_thw"].prod()) // VIDEO_MERGE**2
        merge = {"video_merge_sizes": torch.tensor([VIDEO_MERGE])}
        return {**inputs, **merge, "video_compression_mask": torch.ones(n_visual, dtype=torch.bool)}


class QwenTower(CommonFamily, PackedImages):
    """Qwen2.5-VL's tower in front of language models whose position IDs count tokens: EXAONE 4.5, with windows in the
    decoder and queries that share keys in the tower, and HyperCLOVA X."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cannot["embedded"] = NO_EMBEDS


class Cosmos3Edge(MRope):
    """SigLIP 2 with packed patches. Every frame of a video has a timestamp and markers of its own."""

    per_step = 1
    marks_steps = True
    video_sizes = ((2, 32, 24), (3, 24, 24))


class PaddleOCRVL(MRope):
    """Patches in raster order, merged after the tower."""

    per_step = 1
    squares = True
    video_sizes = ()


class Ernie4_5VL(MRope):
    """Experts for text and others for images, which also process markers. Pairs of frames are merged after the
    tower."""

    per_step = 1
    video_marks = (VIDEO_START, VIDEO_END)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cannot["embedded"] = NO_EMBEDS
        self.cannot["uncached"] = (IndexError, "shape of the mask")  # its token types do not grow

    def block(self, size: Size) -> list[int]:
        return super().block((size[0] // 2, *size[1:]) if len(size) == 3 else size)

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        of_image = (ids == START) | (ids == END)
        of_video = (ids == VIDEO_START) | (ids == VIDEO_END)
        types = super().token_types(ids)["mm_token_type_ids"]
        return {"mm_token_type_ids": types, "moe_mm_token_type_ids": types + of_image.int() + 2 * of_video.int()}


class HunyuanVL(MRope):
    """An image has a token before it, one after each row, and one at its end, all of which are visual tokens. Position
    IDs have four components, which number images across the batch."""

    per_step = 1
    video_sizes = ()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cannot["rows"] = DIFFER

    def block(self, size: Size) -> list[int]:
        _, h, w = self.grid(size)
        return [START, *[IMAGE] * (h // MERGE * (w // MERGE + 1) + 2), END]

    def position_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        ids = super().position_ids(model, inputs)
        return ids if ids.ndim == 3 else ids.expand(4, -1, -1)  # only text

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        return super().embedded_ids(model, inputs)[:1].expand(4, -1, -1)

    def repeated_ids(self, model: Any, inputs: dict[str, Any], answers: Tensor) -> Tensor:
        """Return position IDs, for which images are numbered before the batch is repeated."""
        n = len(answers) // len(inputs["input_ids"])
        return self.position_ids(model, self.continued(inputs, answers[::n])).repeat_interleave(n, 1)


class KimiK25(CommonFamily, PackedImages):
    """Videos in chunks of four frames, which the tower sees together and averages. Keys and values come from one latent
    vector per token; the second layer has experts."""

    per_step = 1
    squares = True
    video_sizes = ((4, 32, 24), (2, 24, 24))  # one chunk each: 4 x 3 and 3 x 3 visual tokens

    def block(self, size: Size) -> list[int]:
        if len(size) == 2:
            return super().block(size)
        timestamp = BREAK
        return [timestamp, *super().block((1, *size[1:]))]


class MuseGlimmer(CommonFamily, PackedImages):
    """Windows in the tower, and a decoder layer with a sliding window. Muse Spark also has experts, and an audio tower
    that tests do not use."""

    def block(self, size: Size) -> list[int]:
        """Return the IDs, with timestamps and separators between the steps of a video."""
        if len(size) == 2:
            return super().block(size)
        t, h, w = self.grid(size)
        timestamp, separator = 88, BREAK
        steps = [token for _ in range(t) for token in (timestamp, *[VIDEO] * (h * w // MERGE**2), separator)]
        return [START, *steps[:-1], END]


class Lfm3VL(CommonFamily, PackedImages):
    """Short convolutions in the tower and between the layers with attention. The language model also has a layer with a
    sliding window, which counts dropped tokens. Only the convolutions are as if they had never seen them."""

    marks_steps = True
    contract = "never seen"

    def mask_of(self, left: Tensor) -> Any:
        age = left[:, None] - left
        window = self.stored["text_config"]["sliding_window"]
        kinds = {"full_attention": age >= 0, "sliding_attention": (age >= 0) & (age < window)}
        masks = {kind: additive(seen[None], torch.ones(1, len(left)).bool()) for kind, seen in kinds.items()}
        return {**masks, "conv": None}


class MiniMaxM3(CommonFamily, PackedImages):
    """Sparse layers choose blocks of 4 slots of the cache, so it needs compact position IDs and no padding: a query
    attends to its own block and to the two best others."""

    marks_steps = True
    contract = "never seen"
    refused = 'compact IDs only: .*Write patch\\(model, ..., position_ids="compact"\\)'

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.cannot = {"padding": DIFFER}


class Sliced(PackedImages):
    """The tower takes one frame of every step."""

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        inputs = super().image_inputs(size, generator)
        return {name: value[:, : 3 * PATCH**2] if "pixel" in name else value for name, value in inputs.items()}
