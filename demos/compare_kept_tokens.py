"""Draw which visual tokens each strategy keeps and why, what the model then answers, and what that costs.

python demos/compare_kept_tokens.py                                    # a bundled scene: the picture of the README
python demos/compare_kept_tokens.py dog.jpg "Where is the dog?" --box 24 15 566 455 --html dog.html
python demos/compare_kept_tokens.py dog.jpg "What is this?" --strategy grid fopru fastv --keep-ratio 0.5 0.1
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tokenprune.evals.explain import page as kept_tokens_page
from tokenprune.evals.explain import sheet as kept_tokens
from tokenprune.evals.explain.explain import explain
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.models.loading import load_model, public_name
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.run.setups import EXPLAINED_STRATEGIES, POSITION_IDS, make_setups
from tokenprune.evals.tasks._read.images import open_image
from tokenprune.evals.tasks.refcoco import RefCoco


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    model, processor = load_model(options.model, "auto")
    if options.image is None:
        sample = RefCoco("rec", "REC", None).load(SCENES, style=style_of(model.config, processor))[0]
        (picture,), question, box = sample.open_images(), sample.text, sample.box
    else:
        picture, question, box = open_image(options.image), options.question, options.box
    strategies = options.strategy or EXPLAINED_STRATEGIES
    drawn = make_setups(strategies, options.keep_ratio, options.position_ids or ["original"], baselines=[])
    if not options.strategy and not options.position_ids:  # and, once, what renumbering does
        drawn += make_setups(["fopru:mode=rank,layer=-2"], options.keep_ratio, ["compact"], baselines=[])
    asked = drawn
    if options.html is not None:
        asked = kept_tokens_page.slider(strategies, options.keep_ratio)
    explained = explain(
        model,
        processor,
        picture,
        question,
        asked,
        true_box=None if box is None else (box[0], box[1], box[2], box[3]),
        name=public_name(options.model),
        rounds=options.rounds,
    )
    kept_tokens.draw(explained.only(drawn), options.output)
    print(f"Written to {options.output}")
    if options.html is not None:
        kept_tokens_page.write(explained, options.html)
        print(f"Written to {options.html}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("question", nargs="?", default="What is this?")
    parser.add_argument("--box", nargs=4, type=float, metavar=("X1", "Y1", "X2", "Y2"), help="the true box, in pixels")
    parser.add_argument("--model", default=str(MODEL), help="a folder or a Hugging Face name")
    parser.add_argument("--strategy", nargs="+", metavar="NAME", help="as in tokenprune eval")
    parser.add_argument("--keep-ratio", nargs="+", type=float, default=[0.25], metavar="RATIO")
    parser.add_argument("--position-ids", nargs="+", choices=POSITION_IDS)
    parser.add_argument("--rounds", type=int, default=5, help="of the measurement of time; 0: none")
    parser.add_argument("--output", type=Path, default=Path("demo_output/kept_tokens.png"))
    parser.add_argument("--html", type=Path, help="a page with a slider over the keep ratio, too")
    return parser


if __name__ == "__main__":
    main()
