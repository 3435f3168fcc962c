"""Draw which parts of an image far larger than the model's input are encoded, and what that costs.

Zoom (tokenprune.Zoom) searches coarse to fine and encodes only what the question attends to; background pruning keeps a
tenth of every tile. The bundled image is an aerial photograph with a few objects pasted in.

    python demos/large_image.py                                            # the bundled model and image
    python demos/large_image.py harbour.jpg "Where is the boat?" --box 812 640 900 711 --model PATH
"""

from collections.abc import Sequence

from _common import image_parser, question_of

from tokenprune.errors import SettingError
from tokenprune.evals.arguments import options as shared
from tokenprune.evals.cli.errors import plain_errors
from tokenprune.evals.dev.figures import large_image
from tokenprune.evals.models.bundled import LARGE
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.run.setups import make_setups


def main(arguments: Sequence[str] | None = None) -> None:
    parser = image_parser(__doc__, "large_image.png", "the bundled aerial photograph")
    shared.add_option(parser, "strategy", shared.strategy(), default="backgroundpruning:layer=-2")
    shared.add_option(
        parser, "keep_ratio", shared.KEEP_RATIO, default=0.1, help="fraction of each tile's visual tokens to keep"
    )
    parser.add_argument(
        "--number", type=int, choices=range(4), help="which question about the bundled image to ask (default: 3)"
    )
    parser.add_argument(
        "--layer",
        type=int,
        default=8,
        metavar="N",
        help="decoder layer that guides the search; try several for another model",
    )
    options = parser.parse_args(arguments)
    if None not in (options.image, options.number):
        raise SettingError("--number has no effect with IMAGE, which has a question of its own. Leave it out.")
    model, processor = load_model(options.model, "auto")
    number = 3 if options.number is None else options.number
    image, question, box = question_of(options, LARGE, number, model, processor)
    (pruned,) = make_setups([options.strategy], [options.keep_ratio], None, baselines=[])
    examined = large_image.examine(model, processor, image, question, pruned, box, options.layer)
    print(examined.look)
    large_image.draw(examined, options.output)
    print(f"Written to {options.output}")


if __name__ == "__main__":
    with plain_errors():
        main()
