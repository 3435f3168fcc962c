"""How a model was taught to be asked, and how it points: what differs between models that are asked the same."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tokenprune.evals.boxes import BOX_FORMATS, Box, BoxFormat, Size

SHORT_ANSWER = "Answer the question using a single word or phrase."


@dataclass(frozen=True)
class Seen:
    """The picture that a model sees: `window` of the given one (in its pixels, which may lie outside), and its size."""

    window: Box
    size: Size


def whole(size: Size) -> Seen:
    """The model sees the whole picture, whatever that does to its proportions."""
    width, height = size
    return Seen((0.0, 0.0, float(width), float(height)), size)


@dataclass(frozen=True)
class Style:
    """What a task must know of a model to ask it and to understand its answer.

    boxes: how it writes boxes.
    instructions: False where it knows bare questions only, none of "answer with a single word" or of options.
    seen: what it sees of a picture of a given size (width, height).
    """

    boxes: BoxFormat
    instructions: bool = True
    seen: Callable[[Size], Seen] = whole

    def short_answer(self, question: str) -> str:
        """Return the question with LLaVA-1.5's instruction for short answers, which the VQA sets share."""
        return f"{question}\n{SHORT_ANSWER}" if self.instructions else question


LLAVA = Style(BOX_FORMATS["llava"])

STYLES = {"llava": LLAVA, "bundled": Style(BOX_FORMATS["bundled"], instructions=False)}

#: By `model_type`; a model whose config says otherwise in `prompt_style`, as the bundled one's, is believed.
STYLE_OF_FAMILY: dict[str, str] = {}


def style_of(config: Any, processor: Any, name: str | None = None) -> Style:
    """Return the style called `name`; None means that of the model that has this config."""
    if name is None:
        name = getattr(config, "prompt_style", None) or STYLE_OF_FAMILY.get(config.model_type, "llava")
    if name not in STYLES:
        raise ValueError(f"no prompt style {name!r}; there are {', '.join(STYLES)}")
    return replace(STYLES[name], seen=_seen_through(processor))


def _seen_through(processor: Any) -> Callable[[Size], Seen]:
    return whole
