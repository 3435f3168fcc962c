"""Coarse to fine on needles in large pictures: `python -m tokenprune.evals.zoom --needles DIR`.

Every question is asked in several ways, and every answer is a line of the results file, with what it cost; a run that
was stopped goes on where it was. `python -m tokenprune.evals.train.needles` draws the pictures.

thumbnail   the picture as the processor resizes it
zoom        `tokenprune.Zoom`
random      the same, but the tiles of each level are drawn at random
best tile   of the thumbnail and, of each level, the tile that shows most of the needle, whichever answers best: what
            choosing tiles could reach at most (REC only)
"""

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import track
from torch.utils.flop_counter import FlopCounterMode

from tokenprune.adapters.prompts import ask, input_side
from tokenprune.evals.boxes import iou
from tokenprune.evals.bundled_paths import MODEL
from tokenprune.evals.identity import versions
from tokenprune.evals.loading import load_model, load_samples, public_name
from tokenprune.evals.sample import Sample
from tokenprune.evals.styles import style_of
from tokenprune.evals.tasks.refcoco import RecSample
from tokenprune.evals.zoom_answers import Answer, read, tables
from tokenprune.pyramid import Level, View, pyramid, thumbnail
from tokenprune.zoom import Look, Step, Zoom

WAYS = ("thumbnail", "zoom", "random", "best tile")


@dataclass(frozen=True)
class RandomZoom(Zoom):
    """Draws the tiles of every level, where Zoom votes."""

    seed: int = 0

    def choose(self, step: Step, level: Level) -> list[View]:
        views = list(level.views())
        drawn = random.Random(f"{self.seed} {level}").sample(views, min(self.tiles, len(views)))
        return sorted(drawn, key=lambda view: (view.row, view.column))


class Asker:
    """Asks one model. Views are of one size, so one pass of each kind is counted and the rest is multiplied."""

    def __init__(self, model: Any, processor: Any, zoom: Zoom) -> None:
        self.model, self.processor, self.zoom = model, processor, zoom
        self.tile = zoom.tile or input_side(processor)
        self.boxes = style_of(model.config, processor).boxes

    def ask(self, way: str, sample: Sample) -> Answer:
        (picture,) = sample.pictures()
        if way == "thumbnail":
            inputs = ask(self.processor, [[picture]], sample.question).to(self.model.device, self.model.dtype)
            text = self._generate(inputs, sample)
            return self._answer(way, sample, text, sample.score(text), picture, 0, 1)
        if way == "best tile":
            assert isinstance(sample, RecSample)
            views = [thumbnail(*picture.size), *(best_tile(level, sample) for level in self._levels(picture))]
            texts = [self._generate(self._shown(view, picture, sample), sample) for view in views]
            scores = [self._score(sample, text, view) for text, view in zip(texts, views, strict=True)]
            best = max(range(len(views)), key=lambda number: scores[number])
            return self._answer(way, sample, texts[best], scores[best], picture, 0, len(views), views[best])
        zoom = self.zoom
        if way == "random":
            settings = {field.name: getattr(zoom, field.name) for field in fields(Zoom)}
            zoom = RandomZoom(**settings, seed=hash_of(sample.id))
        look = zoom.look(self.model, self.processor, picture, sample.question)
        text = self._generate(look.inputs, sample)
        score = self._score(sample, text, look.views[-1])
        n_glances = sum(len(step.views) for step in look.steps)
        reached = tuple(reaches(look, sample)) if isinstance(sample, RecSample) else ()
        return self._answer(way, sample, text, score, picture, n_glances, 1, look.views[-1], reached)

    def _levels(self, picture: Image.Image) -> tuple[Level, ...]:
        return pyramid(*picture.size, self.tile)

    def _shown(self, view: View, picture: Image.Image, sample: Sample) -> Any:
        inputs = ask(self.processor, [[view.picture(picture, self.tile)]], sample.question)
        return inputs.to(self.model.device, self.model.dtype)

    @torch.inference_mode()
    def _generate(self, inputs: Any, sample: Sample) -> str:
        output = self.model.generate(**inputs, do_sample=False, max_new_tokens=sample.max_new_tokens)
        return self.processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()

    def _score(self, sample: Sample, text: str, view: View) -> float | None:
        """A box in a view is one in the whole picture."""
        if not isinstance(sample, RecSample):
            return sample.score(text)
        box = self.boxes.fractions(text, (self.tile, self.tile))
        return None if box is None else float(iou(view.in_whole(box), sample.box) >= 0.5)

    def _answer(
        self,
        way: str,
        sample: Sample,
        text: str,
        score: float | None,
        picture: Image.Image,
        n_glances: int,
        n_answers: int,
        view: View | None = None,
        reached: tuple[bool, ...] = (),
    ) -> Answer:
        n_tokens, glance, prefill = self._costs
        finest = self._levels(picture)[-1]
        n_all = 1 + finest.rows * finest.columns
        return Answer(
            id=sample.id,
            task=sample.task,
            split=sample.split,
            way=way,
            answer=text,
            score=score or 0.0,
            n_visual=n_tokens * (n_glances + n_answers),
            n_all=n_tokens * n_all,
            flops=glance * n_glances + prefill * n_answers,
            flops_all=prefill * n_all,
            reached=reached,
            level=None if view is None else view.level,
        )

    @cached_property
    def _costs(self) -> tuple[int, int, int]:
        """Visual tokens of one view, and the FLOPs of a glance at it and of the prefill that begins an answer."""
        small = Image.new("RGB", (self.tile, self.tile))
        with FlopCounterMode(display=False) as glance:
            (step,) = self.zoom.look(self.model, self.processor, small, "is there a dog?").steps
        inputs = ask(self.processor, [[small]], "is there a dog?").to(self.model.device, self.model.dtype)
        with torch.no_grad(), FlopCounterMode(display=False) as prefill:
            self.model(**inputs, use_cache=False)
        return step.n_visual, glance.get_total_flops(), prefill.get_total_flops()


def best_tile(level: Level, sample: RecSample) -> View:
    """The tile that shows most of what is asked for."""

    def shown(view: View) -> float:
        left, top, right, bottom = view.box
        x1, y1, x2, y2 = sample.box
        return max(0.0, min(right, x2) - max(left, x1)) * max(0.0, min(bottom, y2) - max(top, y1))

    return max(level.views(), key=shown)


def reaches(look: Look, sample: RecSample) -> Iterator[bool]:
    """Of each step behind the first: whether it looked at the tile with the needle's middle."""
    x, y = (sample.box[0] + sample.box[2]) / 2, (sample.box[1] + sample.box[3]) / 2
    for step in look.steps[1:]:
        boxes = [view.box for view in step.views if view.level is not None]
        yield any(left <= x < right and top <= y < bottom for left, top, right, bottom in boxes)


def hash_of(text: str) -> int:
    """The same in every process, unlike hash()."""
    return int.from_bytes(text.encode(), "big") % 2**31


def spread(samples: Sequence[Sample]) -> list[Sample]:
    """The same samples, so that the first few are of all tasks and splits alike."""
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.split, sample.task].append(sample)
    return [sample for sample in chain.from_iterable(zip_longest(*groups.values())) if sample is not None]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    model, processor = load_model(options.model)
    zoom = Zoom(layer=options.layer, keep_ratio=options.keep_ratio, tiles=options.tiles)
    header = {
        "model": public_name(options.model),
        "zoom": asdict(zoom),
        "versions": versions(),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    samples = spread(load_samples(options.needles, style=style_of(model.config, processor)))[: options.limit]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    if not options.output.exists():
        options.output.write_text(json.dumps(header) + "\n", encoding="utf-8")
    was, answers = read(options.output)
    if was != json.loads(json.dumps(header)):
        raise ValueError(f"{options.output} was begun with {was}, and this run has {header}; choose another --output")
    done = {(answer.id, answer.way) for answer in answers}
    asker = Asker(model, processor, zoom)
    with options.output.open("a", encoding="utf-8") as output:
        for sample in track(samples, "questions"):
            for way in options.ways:
                if (sample.id, way) in done or (way == "best tile" and not isinstance(sample, RecSample)):
                    continue
                answers.append(asker.ask(way, sample))
                output.write(json.dumps(asdict(answers[-1])) + "\n")
                output.flush()
    print(tables(answers))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tokenprune.evals.zoom",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--needles", type=Path, required=True, metavar="DIR", help="what train.needles wrote")
    parser.add_argument("--model", default=str(MODEL), help="a folder or a Hugging Face name")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--limit", type=int, metavar="N", help="the first N questions, of all sizes and tasks alike")
    parser.add_argument("--layer", type=int, default=Zoom.layer)
    parser.add_argument("--tiles", type=int, default=Zoom.tiles)
    parser.add_argument("--keep-ratio", type=float, default=Zoom.keep_ratio)
    parser.add_argument("--output", type=Path, default=Path("runs/zoom.jsonl"))
    return parser


if __name__ == "__main__":
    main()
