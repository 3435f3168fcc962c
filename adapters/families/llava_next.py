"""LLaVA-NeXT (1.6): an overview and tiles without their padding, with newline tokens. LLaVA-NeXT-Video pools the
frames of videos; LLaVA-OneVision resizes tiles if there are many, and has one each for several images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from tokenprune.adapters.families.llava import LlavaAdapter
from tokenprune.adapters.layouts.anyres import anyres_layout
from tokenprune.adapters.layouts.frames import frames_layout, video_pixels
from tokenprune.adapters.layouts.newlines import ended_by_newline
from tokenprune.adapters.registry import register_adapter
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("LlavaNextForConditionalGeneration", prompt_style="llava")
class LlavaNextAdapter(LlavaAdapter):
    """For LlavaNextForConditionalGeneration with a CLIP, SigLIP or DINOv2 tower."""

    tokenwise = "LlavaNextMultiModalProjector"

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        strategy = self.config.vision_feature_select_strategy
        return [self.anyres(size, vision_feature_select_strategy=strategy) for size in arguments["image_sizes"]]

    @property
    def side(self) -> int:
        """The side of a tile in patches."""
        vision = self.config.vision_config
        return vision.image_size // vision.patch_size

    def anyres(self, size: Any, **packing: Any) -> Layout:
        """The layout of an image of (height, width) pixels. `packing` is passed on to the model's own packing."""
        return layout_of_size(size, type(self.core), self.config, **packing)


def layout_of_size(size: Any, core: Any, config: Any, side: int | None = None, **packing: Any) -> Layout:
    """The layout of an image of (height, width) pixels, given the base model's class and the model's config. `packing`
    is passed on to the class's own packing. `side` is that of a tile in visual tokens, unless they are its patches."""
    # The same function in every model that cuts tiles.
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

    patches = config.vision_config.image_size // config.vision_config.patch_size
    rows, columns = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, config.vision_config.image_size)
    return anyres_layout(partial(pack, core=core, config=config, size=size, **packing), rows, columns, side or patches)


def pack(
    values: Float[Tensor, "tiles patches"], newline: float, core: Any, config: Any, size: Any, **packing: Any
) -> Float[Tensor, " visual"]:
    """Pack a map over patches with the base model's class, as features of one channel.

    It reads only a model's config, or what Granite 4 Vision's class takes from it. A layout that held the model would
    carry its weights wherever a report goes.
    """
    rate = getattr(config, "downsample_rate", None)
    first, *_ = core.pack_image_features(
        SimpleNamespace(config=config, downsample_rate=rate, layerwise_projectors=()),
        [values[..., None]],
        [size],
        image_newline=values.new_full((1,), newline),
        **packing,
    )
    packed = first if isinstance(first, Tensor) else first[0]  # some return the lengths too
    return packed[:, 0]


@register_adapter("LlavaNextVideoForConditionalGeneration")
class LlavaNextVideoAdapter(LlavaNextAdapter):
    """For LlavaNextVideoForConditionalGeneration with a CLIP, SigLIP or DINOv2 tower."""

    takes_video = True

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        if modality.name == "image":
            return super().layouts(modality, arguments, output)
        n_videos, n_frames = video_pixels(modality, arguments).shape[:2]
        stride = self.config.spatial_pool_stride
        pooled = partial(pool, mode=self.config.spatial_pool_mode, stride=stride, side=self.side)
        return [frames_layout(n_frames, self.side // stride, self.side // stride, pooled)] * n_videos


def pool(values: Float[Tensor, "frames patches"], mode: str, stride: int, side: int) -> Float[Tensor, " visual"]:
    """Pool maps over patches as features are pooled; where a convolution mixes channels, average over its squares."""
    squares = rearrange(values, "frame (row column) -> frame row column", row=side)
    return (max_pool2d if mode == "max" else avg_pool2d)(squares, stride).flatten()


@register_adapter("LlavaOnevisionForConditionalGeneration")
class LlavaOnevisionAdapter(LlavaNextAdapter):
    """For LlavaOnevisionForConditionalGeneration with a SigLIP, CLIP or DINOv2 tower."""

    takes_video = True
    tokenwise = "LlavaOnevisionMultiModalProjector"

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        if modality.name == "video":
            n_videos, n_frames = video_pixels(modality, arguments).shape[:2]
            side = (self.side + 1) // 2
            pooled = partial(pool_by_class, core=type(self.core), config=self.config)
            return [ended_by_newline(frames_layout(n_frames, side, side, pooled))] * n_videos
        sizes, per_row = arguments["image_sizes"], arguments.get("batch_num_images")
        alone = [True] * len(sizes) if per_row is None else [int(n) == 1 for n in per_row for _ in range(n)]
        ratio = arguments.get("vision_aspect_ratio") or self.config.vision_aspect_ratio
        return [
            self.anyres(size, vision_aspect_ratio=ratio)
            if tiled
            else ended_by_newline(frames_layout(1, self.side, self.side))
            for size, tiled in zip(sizes, alone, strict=True)
        ]


def pool_by_class(values: Float[Tensor, "frames patches"], core: Any, config: Any) -> Float[Tensor, " visual"]:
    """Pool maps over patches with the base model's class, as features of one channel; it reads only the config."""
    return core.apply_pooling(SimpleNamespace(config=config), values[..., None]).flatten()
