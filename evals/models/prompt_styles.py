"""Prompt styles: how different models expect the same question, and how they write boxes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tokenprune.adapters.record import records
from tokenprune.errors import SettingError, unknown
from tokenprune.evals.boxes import Box, Point, Size, parts_of, within
from tokenprune.evals.models.box_formats import BOX_FORMATS, BoxFormat
from tokenprune.evals.models.image_view import ImageView, full_view, view_through

#: LLaVA-1.5's instructions (https://arxiv.org/abs/2310.03744, appendix A), used for other models too.
SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Style:
    """What a task needs to know about a model to ask it and read its answer.

    boxes: the format of its boxes.
    instructions: False if it knows only bare questions, without instructions such as "answer with a single word".
    view: the part of an image of a given size (width, height) that the model sees.
    assumed_for: the type of a model whose style is unknown, for which LLaVA's is assumed; "" for any other.
    """

    boxes: BoxFormat
    instructions: bool = True
    view: Callable[[Size], ImageView] = full_view
    assumed_for: str = ""

    def short_answer(self, question: str) -> str:
        """Return the question with LLaVA-1.5's instruction for short answers, which all VQA sets use."""
        return f"{question}\n{SHORT_ANSWER}" if self.instructions else question

    def choice(self, question: str, options: str) -> str:
        """Return the question and its options with LLaVA-1.5's instruction for multiple choice."""
        return f"{question}\n{options}\n{LETTER}" if self.instructions else f"{question}\n{options}"

    def read(self, answer: str, size: Size) -> Box | None:
        """Return the box in an answer, in pixels of the image of this size; None if there is none."""
        view = self.view(size)
        fractions = self.boxes.fractions(answer, view.size)
        return None if fractions is None else within(view.window, fractions)

    def read_point(self, answer: str, size: Size) -> Point | None:
        """Return the point in an answer, in pixels of the image of this size; None if there is none."""
        view = self.view(size)
        point = self.boxes.point(answer, view.size)
        return None if point is None else within(view.window, (*point, *point))[:2]

    def write(self, box: Box, size: Size) -> str:
        """Return a box, in pixels of the image of this size, as the model would write it."""
        view = self.view(size)
        return self.boxes.write(parts_of(view.window, box), view.size)


STYLES = {name: Style(boxes) for name, boxes in BOX_FORMATS.items()}
STYLES["bundled"] = replace(STYLES["bundled"], instructions=False)
LLAVA = STYLES["llava"]

#: By `model_type`. `prompt_style` in a model's config takes precedence, as in the bundled model's.
STYLE_OF_FAMILY = {model_type: record.prompt_style for model_type, record in records().items() if record.prompt_style}


def style_of(config: Any, processor: Any, name: str | None = None) -> Style:
    """Return the style `name`, or by default the style of the model with this config: LLaVA's if it has none."""
    name = name or getattr(config, "prompt_style", None) or STYLE_OF_FAMILY.get(config.model_type)
    if name is not None and name not in STYLES:
        raise SettingError(unknown("prompt style", name, STYLES))
    style = replace(STYLES[name or "llava"], view=view_through(processor))
    return style if name else replace(style, assumed_for=config.model_type)


def unknown_boxes(model_type: str, consequence: str) -> str:
    """Return what to tell the user of a model for which LLaVA's format of boxes is assumed."""
    return (
        f"How {model_type} models write boxes is unknown: {consequence}. Name the format as "
        f'"prompt_style" in the model\'s config.json: {", ".join(STYLES)}'
    )
