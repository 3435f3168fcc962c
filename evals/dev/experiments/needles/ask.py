"""Coarse to fine on needles in large images: `python -m tokenprune.evals.dev.experiments.needles.ask --needles DIR`.

Every question is answered in several ways, and every answer is a line of the results file, with its cost. An
interrupted run resumes with the same command. `python -m tokenprune.evals.dev.experiments.needles.draw` draws the
images, and `python -m tokenprune.evals.dev.tables` makes tables of the answers.

thumbnail    the image as the processor resizes it
coarsest     the thumbnail and the tiles of the coarsest level, answered from the one with the sharpest attention
zoom         `tokenprune.Zoom`: as `coarsest`, and finer tiles that attention chose
random       as `zoom`, with the same number of tiles per level, but drawn at random
exhaustive   as `zoom`, but every tile of every level is examined
best tile    the best answer from the thumbnail and, on each level, the tile that shows most of the needle: an upper
             bound for any choice of tiles (REC only)
"""

import argparse
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import track
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tokenprune.adapters import adapter_for
from tokenprune.evals.boxes import iou
from tokenprune.evals.dev.tables.accuracy.needle_answers import Answer, read
from tokenprune.evals.models.bundled import MODEL
from tokenprune.evals.models.loading import load_model, public_name
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.storage.files import append, lock_for_appending
from tokenprune.evals.storage.identity import check_same
from tokenprune.evals.storage.provenance import device_name, versions
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.refcoco import RefCocoQuestion
from tokenprune.prompts import encode_chat
from tokenprune.zoom.attention import question_attention
from tokenprune.zoom.pyramid import Level, View, input_side, pyramid, thumbnail
from tokenprune.zoom.search import Look, Step, Zoom, centered

WAYS = ("thumbnail", "coarsest", "zoom", "random", "best tile", "exhaustive")


class Asker:
    """Asks one model. All views have one size, so the cost of one pass of each kind is counted and multiplied."""

    def __init__(self, model: Any, processor: Any, zoom: Zoom) -> None:
        self.model, self.processor, self.zoom = model, processor, zoom
        self.tile = zoom.tile or input_side(processor)
        self.boxes = style_of(model.config, processor).boxes

    def answers(self, question: Question, ways: Sequence[str]) -> Iterator[Answer]:
        """Answer the question in every way that applies. What several ways examine is computed only once."""
        (image,) = question.open_images()
        levels = pyramid(*image.size, self.tile)
        answer = partial(self._answer, question, image)
        if "thumbnail" in ways:
            text = self._generate(self._inputs([[image]], question.text), question)
            yield self._counted(question, levels, "thumbnail", text, question.score(text) or 0.0, 0, 1)
        if "best tile" in ways and isinstance(question, RefCocoQuestion):
            views = [thumbnail(*image.size), *(best_tile(level, question) for level in levels)]
            texts = [answer(view) for view in views]
            scores = [self._score(question, text, view) for text, view in zip(texts, views, strict=True)]
            best = max(range(len(views)), key=lambda number: scores[number])
            counts = (0, len(views), views[best])
            yield self._counted(question, levels, "best tile", texts[best], scores[best], *counts)
        if not {"coarsest", "zoom", "random", "exhaustive"} & set(ways):
            return
        look = self.zoom.look(self.model, self.processor, image, question.text)
        for way in ways:
            steps = self._steps(way, look, levels, image, question)
            if steps is None:
                continue
            view = centered(max(steps, key=lambda step: step.focus), *image.size)
            text, n_probed = answer(view), sum(len(step.views) for step in steps)
            reached = tuple(reaches(steps, question)) if isinstance(question, RefCocoQuestion) else ()
            score = self._score(question, text, view)
            yield self._counted(question, levels, way, text, score, n_probed, 1, view, reached)

    def _steps(
        self, way: str, look: Look, levels: Sequence[Level], image: Image.Image, question: Question
    ) -> list[Step] | None:
        """Return the steps of a way that examines tiles, or else None. All such ways see the whole coarsest level."""
        draw = random.Random(question.id)
        first, *others = look.steps
        match way:
            case "coarsest":
                return [first]
            case "zoom":
                return [first, *others]
            case "random":
                drawn = [
                    draw.sample(list(level.views()), len(step.views))
                    for level, step in zip(levels[1:], others, strict=False)
                ]
            case "exhaustive":
                drawn = [list(level.views()) for level in levels[1:]]
            case _:
                return None
        return [first, *(self._step(views, image, question) for views in drawn)]

    def _step(self, views: Sequence[View], image: Image.Image, question: Question) -> Step:
        size, layer = self.zoom.batch_size, self.zoom.layer_of(self.model)
        batches = [views[start : start + size] for start in range(0, len(views), size)]
        rows = ([[view.crop(image, self.tile)] for view in batch] for batch in batches)
        seen = [one for row in rows for one in question_attention(self.model, self._inputs(row, question.text), layer)]
        return Step(tuple(views), tuple(seen))

    def _inputs(self, rows: Sequence[Sequence[Image.Image]], question: str) -> Any:
        return encode_chat(self.processor, rows, [question] * len(rows)).to(self.model.device, self.model.dtype)

    def _answer(self, question: Question, image: Image.Image, view: View) -> str:
        return self._generate(self._inputs([[view.crop(image, self.tile)]], question.text), question)

    @torch.inference_mode()
    def _generate(self, inputs: Any, question: Question) -> str:
        output = self.model.generate(**inputs, do_sample=False, max_new_tokens=question.max_new_tokens)
        return self.processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()

    def _score(self, question: Question, text: str, view: View) -> float:
        """Score an answer. A box is converted from the view to the whole image; an answer without a box scores 0."""
        if not isinstance(question, RefCocoQuestion):
            return question.score(text) or 0.0
        box = self.boxes.fractions(text, (self.tile, self.tile))
        return 0.0 if box is None else float(iou(view.in_whole(box), question.box) >= 0.5)

    def _counted(
        self,
        question: Question,
        levels: Sequence[Level],
        way: str,
        text: str,
        score: float,
        n_probed: int,
        n_answers: int,
        view: View | None = None,
        reached: tuple[bool, ...] = (),
    ) -> Answer:
        n_tokens, probe, prefill = self.costs
        n_all = 1 + levels[-1].rows * levels[-1].columns if levels else 1
        return Answer(
            id=question.id,
            task=question.task,
            split=question.split,
            image=question.images[0].name,
            way=way,
            answer=text,
            score=score,
            n_visual=n_tokens * (n_probed + n_answers),
            n_all=n_tokens * n_all,
            flops=probe * n_probed + prefill * n_answers,
            flops_all=prefill * n_all,
            reached=reached,
            found=shows(view, question) if view is not None and isinstance(question, RefCocoQuestion) else None,
            level=None if view is None else view.level,
        )

    @cached_property
    def costs(self) -> tuple[int, int, int]:
        """The visual tokens of one view, and the FLOPs of probing it and of an answer's prefill."""
        small = Image.new("RGB", (self.tile, self.tile))
        with FlopCounterMode(display=False) as probe:
            (step,) = self.zoom.look(self.model, self.processor, small, "is there a dog?").steps
        inputs = self._inputs([[small]], "is there a dog?")
        with torch.no_grad(), FlopCounterMode(display=False) as prefill:
            self.model(**inputs, use_cache=False)
        return step.n_visual, probe.get_total_flops(), prefill.get_total_flops()


def best_tile(level: Level, question: RefCocoQuestion) -> View:
    """Return the tile that shows most of the needle."""

    def shown(view: View) -> float:
        left, top, right, bottom = view.box
        x1, y1, x2, y2 = question.box
        return max(0.0, min(right, x2) - max(left, x1)) * max(0.0, min(bottom, y2) - max(top, y1))

    return max(level.views(), key=shown)


def shows(view: View, question: RefCocoQuestion) -> bool:
    """Whether the needle's middle is in the view."""
    x, y = (question.box[0] + question.box[2]) / 2, (question.box[1] + question.box[3]) / 2
    left, top, right, bottom = view.box
    return left <= x < right and top <= y < bottom


def reaches(steps: Sequence[Step], question: RefCocoQuestion) -> Iterator[bool]:
    """Yield for each step after the first whether it examined the tile with the needle's middle."""
    for step in steps[1:]:
        yield any(shows(view, question) for view in step.views if view.level is not None)


@contextmanager
def remembered(model: Any) -> Iterator[None]:
    """Within the block, encode each view only once, because questions about one image share many views. Counts are not
    affected. Works for models that take an image as one row of pixels; others encode as usual."""
    core = adapter_for(model).core
    encode, known = core.get_image_features, {}

    def once(pixel_values: torch.Tensor, **settings: Any) -> Any:
        if pixel_values.ndim != 4:
            return encode(pixel_values=pixel_values, **settings)
        keys = [hashlib.sha256(row.float().cpu().numpy().tobytes()).digest() for row in pixel_values]
        new = {key: row for key, row in zip(keys, pixel_values, strict=True) if key not in known}
        if new:
            output = encode(pixel_values=torch.stack(list(new.values())), **settings)
            known.update(zip(new, output.pooler_output, strict=True))
        features: Any = [known[key] for key in keys]
        return BaseModelOutputWithPooling(pooler_output=features)

    core.get_image_features = once
    try:
        yield
    finally:
        del core.get_image_features


def by_image(questions: Sequence[Question]) -> list[list[Question]]:
    """Group the questions by image, in the order of the images, whose needle sizes alternate."""
    ordered = sorted(questions, key=lambda question: question.images[0].name)
    return [list(group) for _, group in groupby(ordered, key=lambda question: question.images[0].name)]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    model, processor = load_model(options.model, options.dtype)
    zoom = Zoom(layer=options.layer, keep_ratio=options.keep_ratio, tiles=options.tiles)
    header = {
        "model": public_name(options.model),
        "zoom": asdict(zoom),
        "versions": versions(),
        "device": device_name(model.device),
        "dtype": options.dtype,
    }
    images = by_image(load_questions(options.needles, style=style_of(model.config, processor)))[: options.limit]
    part, parts = options.part
    asker = Asker(model, processor, zoom)
    _ = asker.costs  # must be counted before any view is remembered
    with lock_for_appending(options.output, "another run is writing it") as output:
        if not options.output.stat().st_size:
            append(output, json.dumps(header) + "\n")
        found, answers = read(options.output)
        check_same(found, header, f"{options.output} was begun", "Choose another --output.")
        done = {(answer.id, answer.way) for answer in answers}
        for questions in track(images[part::parts], "images"):
            with remembered(model):
                for question in questions:
                    ways = [way for way in options.ways if (question.id, way) not in done]
                    for answer in asker.answers(question, ways):
                        append(output, json.dumps(asdict(answer)) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tokenprune.evals.dev.experiments.needles.ask",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--needles", type=Path, required=True, metavar="DIR", help="folder that needles.draw wrote")
    parser.add_argument("--model", default=str(MODEL), help="a folder or a Hugging Face name")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS[:-1], help="(default: all except exhaustive)")
    parser.add_argument("--limit", type=int, metavar="N", help="use the first N images; sizes alternate")
    parser.add_argument(
        "--part",
        nargs=2,
        type=int,
        default=(0, 1),
        metavar=("K", "N"),
        help="use every N-th image, starting with the K-th",
    )
    parser.add_argument("--layer", type=int, default=Zoom.layer)
    parser.add_argument("--tiles", type=int, default=Zoom.tiles)
    parser.add_argument("--keep-ratio", type=float, default=Zoom.keep_ratio)
    parser.add_argument("--output", type=Path, default=Path("runs/zoom.jsonl"))
    return parser


if __name__ == "__main__":
    main()
