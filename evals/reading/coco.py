"""Read COCO's `instances.json`: images and the boxes in them."""

from pathlib import Path
from typing import Any

from tokenprune.errors import DataError
from tokenprune.evals.boxes import Box, Size
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.allowed import find_inside
from tokenprune.text_files import read_json


class Instances:
    """The annotations and images of the `instances.json` in `folder`, by ID; image files are in `images/`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "instances.json"
        content = read_json(self.path)
        self.images = self._by_id(content, "images")
        self.annotations = self._by_id(content, "annotations")

    def _by_id(self, content: Any, key: str) -> dict[str | int, dict[str, Any]]:
        records = fields.items(content, key, str(self.path), may_be_empty=True)
        return fields.by_key(((f"{self.path}, {key}[{number}]", it) for number, it in enumerate(records)), "id")

    def box(self, ann_id: str | int, where: str) -> Box:
        if ann_id not in self.annotations:
            raise DataError(f"{where}: ann_id {ann_id!r} is not among the annotations of {self.path}")
        here = f"{self.path}, annotation {ann_id}"
        return from_corner(fields.field(self.annotations[ann_id], "bbox", here), here)

    def image(self, image_id: str | int, where: str) -> tuple[Path, Size]:
        """Return the image's path and size. The refs have a file_name of their own, which contains the ann_id."""
        if image_id not in self.images:
            raise DataError(f"{where}: image_id {image_id!r} is not among the images of {self.path}")
        here, record = f"{self.path}, image {image_id}", self.images[image_id]
        path = find_inside(self.path.parent, [f"images/{fields.text(record, 'file_name', here)}"], here)
        width, height = fields.integer(record, "width", here), fields.integer(record, "height", here)
        if min(width, height) < 1:
            raise DataError(f"{here}: {width} x {height} is not the size of an image; correct width and height")
        return path, (width, height)


def from_corner(numbers: Any, where: str) -> Box:
    """Return the box that COCO writes as x, y, width, height.

    DataError, naming `where`, unless these are four finite numbers and the box has an area: no answer could overlap a
    box without one, and all would be scored as wrong.
    """
    if not isinstance(numbers, list) or len(numbers) != 4:
        what = f"{len(numbers)} numbers" if isinstance(numbers, list) else fields.describe_value(numbers)
        raise DataError(f"{where}: a box of {what}; expected x, y, width, height")
    x, y, width, height = (fields.as_number(number, f"{where}, bbox[{place}]") for place, number in enumerate(numbers))
    if not (x + width > x and y + height > y):
        raise DataError(f"{where}: a box of width {width:g} and height {height:g} has no area; correct or remove it")
    return x, y, x + width, y + height


def check_inside(box: Box, size: Size, where: str) -> None:
    """Raise DataError, naming `where`, for a box that lies wholly outside an image of this size."""
    if box[0] >= size[0] or box[1] >= size[1] or box[2] <= 0 or box[3] <= 0:
        raise DataError(f"{where}: the box {box} is outside the image of {size[0]} x {size[1]} px; correct it")


def check_pixels(box: Box, size: Size, where: str) -> None:
    """Raise DataError, naming `where`, for a hand-written box that is not in pixels of this image, or has width and
    height in place of the lower right corner. Published boxes may be a few pixels off."""
    if max(box) <= 1:
        raise DataError(
            f"{where}: the box {box} is in fractions of the image; write pixels of its {size[0]} x {size[1]}"
        )
    if min(box[:2]) < -1 or box[2] > size[0] + 1 or box[3] > size[1] + 1:
        raise DataError(
            f"{where}: the box {box} reaches outside the image of {size[0]} x {size[1]} px; write left, top, right, "
            "bottom in pixels of the upright image"
        )
