"""What the demos share: common options, and the question that they ask if no image is given."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from PIL import Image

from tokenprune.errors import SettingError
from tokenprune.evals.arguments.options import MODEL, add_box, add_image, add_option
from tokenprune.evals.arguments.parser import script_parser
from tokenprune.evals.boxes import Box
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.reading.images import open_image
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.tasks.refcoco import RefCocoQuestion


def demo_parser(description: str | None, output: str) -> ArgumentParser:
    """Return a parser with --model and --output."""
    parser = script_parser(description)
    add_option(parser, "model", MODEL)
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output") / output, metavar="FILE", help="file to write"
    )
    return parser


def image_parser(description: str | None, output: str, bundled: str) -> ArgumentParser:
    """Return a `demo_parser` with IMAGE, QUESTION and --box. `bundled` describes what is used without IMAGE."""
    parser = demo_parser(description, output)
    add_image(parser, bundled)
    add_box(parser)
    return parser


def question_of(
    options: Namespace, data: Path, number: int, model: Any, processor: Any
) -> tuple[Image.Image, str, Box | None]:
    """Return the image, question and true box of the options or, without IMAGE, of REC question `number` in `data`."""
    if options.image is not None:
        return open_image(options.image), options.question, options.box
    if options.box is not None:
        raise SettingError("--box has no effect without IMAGE: the bundled question has its own box. Leave it out.")
    question = load_questions(data, ["rec"], style=style_of(model.config, processor))[number]
    assert isinstance(question, RefCocoQuestion)
    (image,) = question.open_images()
    return image, question.text, question.box
