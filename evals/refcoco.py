"""RefCOCO, RefCOCO+ and RefCOCOg as they are distributed: `instances.json` and `refs(NAME).p`.

The pickle (a list of refs, written by Python 2) and the same list as JSON are both read. The layout is the one that
the `refer` tool documents; it was not checked against the real files, which cannot be had where this was written.
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from tokenprune.evals.boxes import Box, in_pixels, iou, parse_box
from tokenprune.evals.coco import Instances
from tokenprune.evals.pictures import open_picture
from tokenprune.evals.records import field, only_file, read_json
from tokenprune.evals.sample import Sample
from tokenprune.evals.splits import chosen


@dataclass(frozen=True)
class RecSample(Sample):
    """One expression and the box of what it means, in pixels of a picture of `size` (width, height)."""

    task: ClassVar[str] = "rec"
    metric: ClassVar[str] = "Acc@0.5"

    expression: str
    box: Box
    size: tuple[int, int]

    @property
    def question(self) -> str:
        return f"Where is {self.expression}?"

    def score(self, answer: str) -> float | None:
        """Return 1 where the answered box has an IoU of at least 0.5 with the true one, None where it is no box."""
        box = parse_box(answer)
        return None if box is None else float(iou(in_pixels(box, self.size), self.box) >= 0.5)

    def picture(self) -> Image.Image:
        picture = open_picture(self.image)
        if picture.size != self.size:
            raise ValueError(
                f"{self.image}: {picture.size} px upright, but instances.json says {self.size}, so the boxes do not "
                "fit; save the picture upright without EXIF rotation, or correct width and height"
            )
        return picture


def load(folder: Path, split: str | None = None) -> list[RecSample]:
    """Return one sample for each sentence of the refs in `split`; None means all but `train`.

    `folder` holds `instances.json`, `refs(NAME).p` or `refs(NAME).json`, and the pictures in `images/`.
    """
    path = only_file(folder, "refs(*).json", "refs(*).p")
    if path is None:
        raise FileNotFoundError(f"{folder}: no refs(NAME).p or refs(NAME).json")
    refs = read_json(path) if path.suffix == ".json" else _read_pickle(path)
    if not isinstance(refs, list):
        raise ValueError(f"{path}: expected a list of refs, found {type(refs).__name__}")
    found = {field(ref, "split", _where(path, number, ref)) for number, ref in enumerate(refs)}
    splits = chosen(split, found, str(path))
    instances = Instances(folder)
    return [
        sample
        for number, ref in enumerate(refs)
        if ref["split"] in splits
        for sample in _samples(ref, instances, _where(path, number, ref))
    ]


def _samples(ref: dict[str, Any], instances: Instances, where: str) -> Iterator[RecSample]:
    box = instances.box(field(ref, "ann_id", where), where)
    image, size = instances.image(field(ref, "image_id", where), where)
    for sentence in field(ref, "sentences", where):
        yield RecSample(
            id=f"rec-{field(sentence, 'sent_id', where)}",
            image=image,
            split=ref["split"],
            expression=field(sentence, "sent", where),
            box=box,
            size=size,
        )


def _where(path: Path, number: int, ref: Any) -> str:
    name = f", ref_id {ref['ref_id']}" if isinstance(ref, dict) and "ref_id" in ref else ""
    return f"{path}, record {number}{name}"


class _PlainUnpickler(pickle.Unpickler):
    """Lists, dicts, strings and numbers only: a pickle that names anything else could run code."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}; a refs file holds plain data only")


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8").load()
    except (pickle.UnpicklingError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a refs pickle: {error or 'the file ends too early'}") from error
