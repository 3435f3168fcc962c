"""Draw what is looked at of a picture far larger than the model's input, and what that costs.

Coarse to fine (tokenprune.Zoom) looks only where the question attends to; background pruning keeps a tenth of every
tile. The bundled picture is an aerial photograph with a few things put on it.

python demos/large_image.py                                            # the bundled model and picture
python demos/large_image.py harbour.jpg "Where is the boat?" --box 812 640 900 711 --model PATH
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tokenprune.evals.cli.errors import plain_errors
from tokenprune.evals.dev.figures import large_image as large_picture
from tokenprune.evals.models.bundled import LARGE, MODEL
from tokenprune.evals.models.loading import load_model, load_questions
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.run.setups import make_setups
from tokenprune.evals.tasks._read.images import open_image
from tokenprune.evals.tasks.refcoco import RefCocoQuestion


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    model, processor = load_model(options.model, "auto")
    if options.image is None:
        sample = load_questions(LARGE, style=style_of(model.config, processor))[options.number]
        assert isinstance(sample, RefCocoQuestion)
        (picture,), question, box = sample.open_images(), sample.text, sample.box
    else:
        picture, question, box = open_image(options.image), options.question, options.box
    (pruned,) = make_setups([options.strategy], [options.keep_ratio], ["original"], baselines=[])
    examined = large_picture.examine(model, processor, picture, question, pruned, box)
    print(examined.look)
    large_picture.draw(examined, options.output)
    print(f"Written to {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("question", nargs="?", default="What is this?")
    parser.add_argument("--box", nargs=4, type=float, metavar=("X1", "Y1", "X2", "Y2"), help="the true box, in pixels")
    parser.add_argument("--model", default=str(MODEL), help="a folder or a Hugging Face name")
    parser.add_argument("--strategy", default="backgroundpruning:layer=-2", help="with settings: fopru:mode=row")
    parser.add_argument("--keep-ratio", type=float, default=0.1, help="of every tile's visual tokens")
    parser.add_argument("--number", type=int, default=3, help="which question about the bundled picture, 0 to 3")
    parser.add_argument("--output", type=Path, default=Path("demo_output/large_image.png"))
    return parser


if __name__ == "__main__":
    with plain_errors():
        main()
