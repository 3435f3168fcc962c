"""Draw which visual tokens each strategy keeps and why, and what the model then answers.

python demos/compare_kept_tokens.py                                    # a bundled scene: the image in the README
python demos/compare_kept_tokens.py dog.jpg "Where is the dog?" --box 24 15 566 455 --html dog.html
python demos/compare_kept_tokens.py dog.jpg "What is this?" --strategy grid fopru fastv --keep-ratio 0.5 0.1
"""

from collections.abc import Sequence
from pathlib import Path

from _common import image_parser, question_of

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.cli.errors import plain_errors
from tokenprune.evals.defaults import EXPLAINED_STRATEGIES
from tokenprune.evals.dev.figures.adapted import adapted_setup, with_adapted
from tokenprune.evals.dev.figures.typical import typical
from tokenprune.evals.explain import page, sheet
from tokenprune.evals.explain.explain import explain
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.models.loading import load_model, public_name
from tokenprune.evals.run.setups import DOWNSAMPLE, make_setups

KEEP_RATIO = 0.25


def main(arguments: Sequence[str] | None = None) -> None:
    parser = image_parser(__doc__, "kept_tokens.png", "a bundled scene")
    shared.add_option(parser, "strategy", shared.strategies(), default=EXPLAINED_STRATEGIES)
    shared.add_option(parser, "keep_ratio", shared.keep_ratios(), default=[KEEP_RATIO])
    shared.add_option(parser, "position_ids", shared.position_ids(), default=None)
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with a slider over the keep ratio")
    options = parser.parse_args(arguments)
    model, processor = load_model(options.model, "auto")
    adapted = [] if options.image or Path(options.model) != MODEL else [adapted_setup(KEEP_RATIO)]
    usual = make_setups([DOWNSAMPLE, *EXPLAINED_STRATEGIES], [KEEP_RATIO], ["original"], baselines=[])
    number = 0 if options.image else typical([*usual, *adapted])
    image, question, box = question_of(options, SCENES, number, model, processor)
    smaller = [] if options.image else make_setups([DOWNSAMPLE], options.keep_ratio, ["original"], baselines=[])
    drawn = [*smaller, *make_setups(options.strategy, options.keep_ratio, options.position_ids, baselines=[])]
    asked = drawn
    if options.html is not None:
        asked = [*smaller, *page.slider(model, options.strategy, options.keep_ratio)]
    explained = explain(
        model,
        processor,
        image,
        question,
        asked,
        true_box=box,
        name=public_name(options.model),
        rounds=0,
    )
    shown = explained.only(drawn)
    for setup in adapted:
        shown = with_adapted(shown, setup)
    sheet.draw(shown, options.output)
    print(f"Written to {options.output}")
    if options.html is not None:
        page.write(explained, options.html)
        print(f"Written to {options.html}")


if __name__ == "__main__":
    with plain_errors("adapt"):
        main()
