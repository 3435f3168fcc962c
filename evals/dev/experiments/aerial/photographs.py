"""Aerial photographs with a box around every tree, from the package deepforest (MIT): downloaded, never installed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from tokenprune.evals.dev.train.sources.fetch import wheel

DEEPFOREST = ("deepforest", "2.1.0", "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54")
#: Image and Pascal VOC file of each, in the package's data folder.
FILES = {
    "2019_YELL_2_528000_4978000_image_crop2.png": "2019_YELL_2_528000_4978000_image_crop2.xml",
    "2019_YELL_2_541000_4977000_image_crop.png": "2019_YELL_2_541000_4977000_image_crop.xml",
    "OSBS_029.png": "OSBS_029.xml",
    "SOAP_061.png": "SOAP_061.xml",
}
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, eq=False)
class Photograph:
    """One photograph cut into square tiles, row by row; what does not fill a tile, right and below, is left out.

    tiles: how many (down, across). boxes: one row of x1, y1, x2, y2 in pixels for each tree, all of the image's.
    """

    name: str
    image: Image.Image
    side: int
    tiles: tuple[int, int]
    boxes: np.ndarray

    def cut(self) -> list[Image.Image]:
        """The tiles."""
        corners = [(x * self.side, y * self.side) for y in range(self.tiles[0]) for x in range(self.tiles[1])]
        return [self.image.crop((x, y, x + self.side, y + self.side)) for x, y in corners]

    def inside(self, patch: int) -> np.ndarray:
        """(tiles, patches, trees): whose middle lies in which box."""
        per_side = self.side // patch
        down, row, across, column = np.indices((self.tiles[0], per_side, self.tiles[1], per_side))
        y, x = (t * self.side + (p + 0.5) * patch for t, p in ((down, row), (across, column)))
        y, x = (place.transpose(0, 2, 1, 3).reshape(-1, per_side**2, 1) for place in (y, x))
        x1, y1, x2, y2 = self.boxes.T
        return (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)


def photographs(downloads: Path, side: int) -> Iterator[Photograph]:
    """All of them, in tiles of `side` pixels. Raises RuntimeError if the package cannot be had."""
    with zipfile.ZipFile(wheel(*DEEPFOREST, downloads)) as archive:
        for image_file, boxes_file in FILES.items():
            image = Image.open(io.BytesIO(archive.read(f"deepforest/data/{image_file}"))).convert("RGB")
            boxes = read_boxes(archive.read(f"deepforest/data/{boxes_file}"))
            yield Photograph(image_file, image, side, (image.height // side, image.width // side), boxes)


def read_boxes(xml: bytes) -> np.ndarray:
    """x1, y1, x2, y2 of every object in a Pascal VOC file."""
    found = ElementTree.fromstring(xml).iter("bndbox")
    return np.array([[float(box.findtext(corner, "nan")) for corner in CORNERS] for box in found]).reshape(-1, 4)
