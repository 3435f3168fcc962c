"""The part of an image that a model sees: its boxes are relative to that part, not to the file."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenprune.adapters.record import records
from tokenprune.errors import SettingError
from tokenprune.evals.boxes import Box, Size


@dataclass(frozen=True)
class ImageView:
    """A model's view of an image: a `window` in pixels of the image, which may reach beyond it, shown at `size`."""

    window: Box
    size: Size

    def cuts(self, box: Box) -> bool:
        """Whether more than half a pixel of a box, in pixels of the image, is outside the window."""
        (left, top, right, bottom), (x1, y1, x2, y2) = self.window, box
        return max(left - x1, top - y1, x2 - right, y2 - bottom) > 0.5


def full_view(size: Size) -> ImageView:
    """Return the view of the whole image, stretched if need be."""
    width, height = size
    return ImageView((0.0, 0.0, float(width), float(height)), size)


def padded_view(size: Size) -> ImageView:
    """Return the view of the image in the middle of a square."""
    side = float(max(size))
    return _middle(size, side, side)


def view_through(processor: Any) -> Callable[[Size], ImageView]:
    """Return the function from an image's size to the view that this processor gives of it, as the records of families
    say: `views`. Any other processor is assumed to show the whole image, as is the overview of one that cuts images
    into tiles."""
    images = processor.image_processor
    views = views_of(images)
    if "resized" in views:
        return lambda size: _resized(size, images)
    if "padded" in views and images.do_pad:
        return padded_view
    if "cropped" in views and images.do_center_crop:
        return lambda size: _cropped(size, images)
    return full_view


def views_of(images: Any) -> tuple[str, ...]:
    """Return how an image processor shows images, as its family's record says."""
    every = (view for record in records().values() for view in record.views.items())
    return next((views for start, views in every if type(images).__name__.startswith(start)), ())


def padding(processor: Any) -> Any:
    """Return a copy of LLaVA-1.5's processor that shows the whole image, in the middle of a square of the mean colour,
    as in its training; on the Hub, it crops. SettingError for a processor that does not."""
    from transformers import LlavaImageProcessor

    images = processor.image_processor
    if not ("cropped" in views_of(images) and images.do_center_crop):
        raise SettingError(
            f"pad (--pad) is for processors that crop images, as LLaVA-1.5's do; {type(images).__name__} shows the "
            "whole image here. Leave it out"
        )
    clip_like = copy.deepcopy(processor)
    settings = images.to_dict() | {"do_pad": True, "do_center_crop": False, "size": dict(images.crop_size)}
    clip_like.image_processor = LlavaImageProcessor(**settings)
    return clip_like


def _middle(size: Size, width: float, height: float) -> ImageView:
    """Return the view of a window of this size around the middle of the image."""
    x, y = (size[0] - width) / 2, (size[1] - height) / 2
    return ImageView((x, y, x + width, y + height), (round(width), round(height)))


def _cropped(size: Size, images: Any) -> ImageView:
    target, crop = images.size, images.crop_size
    if images.do_resize and target.shortest_edge:
        scale = min(size) / target.shortest_edge
        return _middle(size, crop.width * scale, crop.height * scale)
    if images.do_resize:
        return _middle(size, crop.width * size[0] / target.width, crop.height * size[1] / target.height)
    return _middle(size, float(crop.width), float(crop.height))


def _resized(size: Size, images: Any) -> ImageView:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    width, height = size
    factor = images.patch_size * images.merge_size
    pixels = images.size.shortest_edge, images.size.longest_edge
    rows, columns = smart_resize(height, width, factor=factor, min_pixels=pixels[0], max_pixels=pixels[1])
    return ImageView(full_view(size).window, (columns, rows))
