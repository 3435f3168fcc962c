"""Read COCO's `instances.json`: images and the boxes in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError
from tokenprune.evals.models.boxes import Box
from tokenprune.evals.tasks._read.records import field, read_json


class Instances:
    """The annotations and images of the `instances.json` in `folder`, by ID; image files are in `images/`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "instances.json"
        content = read_json(self.path)
        self.images = self._by_id(content, "images")
        self.annotations = self._by_id(content, "annotations")

    def _by_id(self, content: Any, key: str) -> dict[int, dict[str, Any]]:
        records = field(content, key, str(self.path))
        return {field(record, "id", f"{self.path}, {key}[{number}]"): record for number, record in enumerate(records)}

    def box(self, ann_id: int, where: str) -> Box:
        if ann_id not in self.annotations:
            raise DataError(f"{where}: ann_id {ann_id} is not among the annotations of {self.path}")
        here = f"{self.path}, annotation {ann_id}"
        return from_corner(field(self.annotations[ann_id], "bbox", here), here)

    def image(self, image_id: int, where: str) -> tuple[Path, tuple[int, int]]:
        """Return the image's path and size. The refs have a file_name of their own, which contains the ann_id."""
        if image_id not in self.images:
            raise DataError(f"{where}: image_id {image_id} is not among the images of {self.path}")
        here = f"{self.path}, image {image_id}"
        record = self.images[image_id]
        path = self.path.parent / "images" / field(record, "file_name", here)
        if not path.is_file():
            raise DataError(f"{here}: missing image {path}")
        return path, (field(record, "width", here), field(record, "height", here))


def from_corner(numbers: Sequence[Any], where: str) -> Box:
    """Return the box that COCO writes as x, y, width, height. DataError, naming `where`, unless there are four."""
    if len(numbers) != 4:
        raise DataError(f"{where}: a box of {len(numbers)} numbers; expected x, y, width, height")
    x, y, width, height = map(float, numbers)
    return x, y, x + width, y + height
