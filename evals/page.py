"""One HTML page that needs nothing else: tables, plots, and the worst losses with what was kept of their pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tokenprune.evals.boxes import Box
from tokenprune.evals.losses import Loss
from tokenprune.evals.sample import Sample
from tokenprune.evals.templates import data_url, jpeg_url, render

SIDE = 320  # pixels of an embedded picture's longer side


@dataclass
class Picture:
    """An embedded picture, `scale` times as large as its file. `name` is what the cards refer to it by."""

    name: str
    url: str
    width: int
    height: int
    scale: float


@dataclass
class Card:
    """A loss as the page shows it. Boxes and `dropped` are in the embedded picture's pixels."""

    loss: Loss
    title: str
    question: str = ""
    picture: Picture | None = None
    window: Box = (0.0, 0.0, 0.0, 0.0)
    dropped: str = ""
    boxes: dict[str, Box] = field(default_factory=dict)
    note: str = ""


def page(
    title: str,
    sections: Sequence[object],
    plots: Sequence[Path],
    losses: Sequence[Loss],
    samples: Mapping[tuple[str, str], Sample],
    note: str = "",
) -> str:
    """Return the page. `sections` are paragraphs and tables; `note` says why losses have no pictures, if so."""
    pictures: dict[tuple[str, str], Picture] = {}
    cards = [_card(loss, samples.get((loss.pruned.task, loss.pruned.id)), pictures) for loss in losses]
    return render(
        "page.html",
        title=title,
        sections=sections,
        plots=[(path.stem.replace("_", " "), data_url(path.read_bytes(), "image/png")) for path in plots],
        cards=cards,
        pictures=list(pictures.values()),
        strategies=list(dict.fromkeys(loss.pruned.strategy for loss in losses)),
        note=note,
    )


def _card(loss: Loss, sample: Sample | None, pictures: dict[tuple[str, str], Picture]) -> Card:
    answer = loss.pruned
    card = Card(loss, f"{answer.strategy}, {100 * answer.keep_ratio:g} %, {answer.position_ids} position IDs")
    if sample is None:
        return card
    card.question = sample.question
    if len(sample.images) != 1:
        card.note = f"{len(sample.images)} pictures, not shown"
        return card
    if (sample.task, sample.id) not in pictures:
        pictures[sample.task, sample.id] = _picture(sample, f"picture-{len(pictures)}")
    card.picture = picture = pictures[sample.task, sample.id]
    size = picture.width / picture.scale, picture.height / picture.scale
    style: Any = getattr(sample, "style", None)
    window = style.seen((round(size[0]), round(size[1]))).window if style else (0.0, 0.0, *size)
    card.window = _scaled(window, picture.scale)
    if len(answer.kept) == 1 and len(answer.kept[0].grids) == 1:
        card.dropped = _cells(~answer.kept[0].mask(answer.n_visual), answer.kept[0].grids[0], card.window)
    elif answer.kept:
        card.note = f"{len(answer.kept[0].grids)} grids of visual tokens, not drawn"
    boxes: dict[str, Any] = {"true": getattr(sample, "box", None)}
    if read := getattr(sample, "answered_box", None):
        boxes |= {"unpruned": read(loss.unpruned.text), "pruned": read(answer.text)}
    card.boxes = {name: _scaled(box, picture.scale) for name, box in boxes.items() if box is not None}
    return card


def _picture(sample: Sample, name: str) -> Picture:
    (picture,) = sample.pictures()
    scale = min(1.0, SIDE / max(picture.size))
    width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    url = jpeg_url(picture.resize((width, height), Image.Resampling.LANCZOS))
    return Picture(name, url, width, height, scale)


def _scaled(box: Box, scale: float) -> Box:
    x1, y1, x2, y2 = box
    return x1 * scale, y1 * scale, x2 * scale, y2 * scale


def _cells(dropped: np.ndarray, grid: tuple[int, int, int], window: Box) -> str:
    """Return an SVG path of the dropped cells, those side by side in one rectangle."""
    _, rows, columns = grid
    left, top, right, bottom = window
    width, height = (right - left) / columns, (bottom - top) / rows
    path = []
    for row, cells in enumerate(dropped.reshape(-1, columns)[:rows]):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], cells, [0]])))
        for start, end in edges.reshape(-1, 2):
            x, y = left + start * width, top + row * height
            path.append(f"M{x:.1f} {y:.1f}h{(end - start) * width:.1f}v{height:.1f}h{(start - end) * width:.1f}z")
    return "".join(path)
