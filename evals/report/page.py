"""A self-contained HTML page: verdicts, a plot, tables, and the worst regressions with the tokens that were kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from tokenprune.errors import DataError
from tokenprune.evals.boxes import Box
from tokenprune.evals.report.regressions import AskedQuestion, Regression
from tokenprune.evals.report.rendering import data_url, jpeg_url, render
from tokenprune.evals.storage.answers import KeptTokens
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.video import VideoQuestion

#: Identifies an embedded image: what its question shows, and the image's number within it.
Shown: TypeAlias = tuple[tuple[object, ...], int]
SIDE = 320  # pixels of an embedded image's longer side
CELL = 10  # pixels of a visual token that is drawn without its image
MOST = 8  # panels of a card; a video has more
AT_FIRST = 24  # cards shown before a click shows all


@dataclass
class EmbeddedImage:
    """An embedded image, `scale` times as large as its file. Cards refer to it by `name`."""

    name: str
    url: str
    width: int
    height: int
    scale: float


@dataclass
class Panel:
    """One grid of visual tokens as a card draws it: `dropped` is an SVG path and `boxes` are in the panel's pixels.
    `image` is None if the part of it that the grid shows is unknown; `name` distinguishes several panels."""

    width: int
    height: int
    image: EmbeddedImage | None = None
    dropped: str = ""
    boxes: dict[str, Box] = field(default_factory=dict)
    name: str = ""


@dataclass
class Card:
    """A regression as shown on the page."""

    regression: Regression
    title: str
    question: str = ""
    panels: list[Panel] = field(default_factory=list)
    note: str = ""


def page(
    title: str,
    verdicts: Sequence[str],
    sections: Sequence[object],
    plot: Path | None,
    regressions: Sequence[Regression],
    questions: Mapping[tuple[str, str, str], AskedQuestion],
    note: str = "",
) -> str:
    """Return the page. verdicts: sentences. sections: paragraphs and tables. note: why regressions have no images, if
    so."""
    images: dict[Shown, EmbeddedImage] = {}
    cards = [_card(regression, questions.get(regression.question), images) for regression in regressions]
    return render(
        "page.html",
        title=title,
        verdicts=verdicts,
        sections=sections,
        plot=data_url(plot.read_bytes(), "image/png") if plot else "",
        cards=cards,
        images=list(images.values()),
        strategies=list(dict.fromkeys(regression.pruned.strategy for regression in regressions)),
        note=note,
        at_first=AT_FIRST,
    )


def _card(regression: Regression, asked: AskedQuestion | None, images: dict[Shown, EmbeddedImage]) -> Card:
    answer = regression.pruned
    card = Card(regression, f"{answer.strategy}, {100 * answer.keep_ratio:g} %, {answer.position_ids} position IDs")
    if asked is None:
        return card
    question = asked.question
    card.question = question.text
    shown = _shown(question)
    if (shown, 0) not in images:
        try:
            opened = question.open_images()
        except (DataError, OSError) as error:  # the file was replaced since the run
            card.note = f"not shown: {error}"
            return card
        for number, image in enumerate(opened):
            images[shown, number] = _embedded(image, f"image-{len(images)}")
    panels: list[Panel] = []
    if isinstance(question, VideoQuestion):
        frames = [image for (name, _), image in images.items() if name == shown]
        panels = _frames(frames, answer.kept, _window(asked, frames[0]))
    for number in range(0 if panels else len(question.images)):
        image = images[shown, number]
        kept = answer.kept[number] if len(answer.kept) == len(question.images) else None
        of_image = _panels(image, kept, _window(asked, image))
        if len(question.images) > 1:
            of_image = [replace(panel, name=f"image {number + 1} {panel.name}".strip()) for panel in of_image]
        panels += of_image
    if len(question.images) == 1 and not isinstance(question, VideoQuestion) and panels[0].image is not None:
        panels[0].boxes = _boxes(regression, question, panels[0].image.scale)
    card.panels = panels[:MOST]
    if len(panels) > MOST:
        card.note = f"{len(panels) - MOST} more not drawn"
    return card


def _shown(question: Question) -> tuple[object, ...]:
    """What a question shows: its images, or a part of a video."""
    part = (question.n_frames, question.start, question.end) if isinstance(question, VideoQuestion) else ()
    return (*question.images, *part)


def _frames(images: Sequence[EmbeddedImage], kept: Sequence[KeptTokens], window: Box) -> list[Panel]:
    """Return a panel for each frame of a video. If the model merges frames, the first of each group is shown; with an
    odd number, the last is merged with itself. A model that takes frames as images has one `kept` for each."""
    steps = [step for image in kept for grid in image.dropped() for step in grid if step.size > 1]
    steps = steps if len(kept) == 1 or len(steps) == len(images) else []  # tiles of frames have unknown places
    merged = ceil(len(images) / len(steps)) if steps else 1
    shown = [images[min(number * merged, len(images) - 1)] for number in range(len(steps))] or images
    return [
        Panel(
            image.width,
            image.height,
            image,
            _cells(steps[number], window) if steps else "",
            name=f"frame {number + 1}",
        )
        for number, image in enumerate(shown)
    ]


def _panels(image: EmbeddedImage, kept: KeptTokens | None, window: Box) -> list[Panel]:
    """Return a panel for each grid of an image's visual tokens, or the image alone if none were reported."""
    whole = Panel(image.width, image.height, image)
    grids = [] if kept is None else kept.dropped()
    if not grids:
        return [whole]
    if len(grids) == 1:
        return [replace(whole, dropped=_cells(grids[0][0], window))]
    if len(grids) == 2:  # both show the whole image, padded or cropped only in the overview
        everything = (0.0, 0.0, float(image.width), float(image.height))
        return [
            replace(whole, dropped=_cells(grids[0][0], window), name="overview"),
            replace(whole, dropped=_cells(grids[1][0], everything), name="canvas"),
        ]
    return [
        Panel(CELL * cells.shape[2], CELL * cells.shape[1], None, _alone(cells[0]), name=f"grid {number}")
        for number, cells in enumerate(grids, start=1)
    ]


def _alone(dropped: np.ndarray) -> str:
    return _cells(dropped, (0.0, 0.0, float(CELL * dropped.shape[1]), float(CELL * dropped.shape[0])))


def _window(asked: AskedQuestion, image: EmbeddedImage) -> Box:
    """Return the part of the image that the model saw, in the embedded image's pixels."""
    size = round(image.width / image.scale), round(image.height / image.scale)
    return _scaled(asked.view(size).window, image.scale)


def _boxes(regression: Regression, question: Question, scale: float) -> dict[str, Box]:
    boxes: dict[str, Any] = {"true": getattr(question, "box", None)}
    if read := getattr(question, "answered_box", None):
        boxes |= {"unpruned": read(regression.unpruned.text), "pruned": read(regression.pruned.text)}
    return {name: _scaled(box, scale) for name, box in boxes.items() if box is not None}


def _embedded(image: Image.Image, name: str) -> EmbeddedImage:
    scale = min(1.0, SIDE / max(image.size))
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    url = jpeg_url(image.resize((width, height), Image.Resampling.LANCZOS))
    return EmbeddedImage(name, url, width, height, scale)


def _scaled(box: Box, scale: float) -> Box:
    x1, y1, x2, y2 = box
    return x1 * scale, y1 * scale, x2 * scale, y2 * scale


def _cells(dropped: np.ndarray, window: Box) -> str:
    """Return an SVG path of one grid's dropped cells, adjacent ones as one rectangle."""
    rows, columns = dropped.shape
    left, top, right, bottom = window
    width, height = (right - left) / columns, (bottom - top) / rows
    path = []
    for row, cells in enumerate(dropped):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], cells, [0]])))
        for start, end in edges.reshape(-1, 2):
            x, y = left + start * width, top + row * height
            path.append(f"M{x:.1f} {y:.1f}h{(end - start) * width:.1f}v{height:.1f}h{(start - end) * width:.1f}z")
    return "".join(path)
