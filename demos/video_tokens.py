"""Draw which visual tokens each strategy keeps in the frames of a video, as a filmstrip and as an animated GIF.

python demos/video_tokens.py                                       # a bundled clip
python demos/video_tokens.py cat.mp4 "When does the cat jump?" --model PATH --frames 16 --strategy evs vcast
"""

from collections.abc import Sequence

from _common import demo_parser

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.arguments.parser import existing_file
from tokenprune.evals.cli.errors import plain_errors
from tokenprune.evals.defaults import EXPLAINED_OF_VIDEOS
from tokenprune.evals.explain import filmstrip
from tokenprune.evals.explain.explain import explain
from tokenprune.evals.models.bundled import CLIPS
from tokenprune.evals.models.loading import load_model, public_name
from tokenprune.evals.reading.videos import read_clip
from tokenprune.evals.run.setups import make_setups

BUNDLED, QUESTION = CLIPS / "videos" / "clip_015.mp4", "is there a carousel?"
#: With more frames, given as images, the prompt would be too long for the bundled model.
FITTING = 4


def main(arguments: Sequence[str] | None = None) -> None:
    parser = demo_parser(__doc__, "video_tokens.png")
    parser.add_argument(
        "video", nargs="?", type=existing_file, default=BUNDLED, metavar="VIDEO", help="video file (default: bundled)"
    )
    parser.add_argument("question", nargs="?", default=QUESTION, metavar="QUESTION", help="what to ask about VIDEO")
    shared.add_option(parser, "frames", shared.FRAMES_READ, default=FITTING)
    shared.add_option(parser, "strategy", shared.strategies(), default=[*EXPLAINED_OF_VIDEOS, "vcast"])
    shared.add_option(parser, "keep_ratio", shared.keep_ratios(), default=[0.4])
    options = parser.parse_args(arguments)
    model, processor = load_model(options.model, "auto")
    explained = explain(
        model,
        processor,
        read_clip(options.video, options.frames),
        options.question,
        make_setups(options.strategy, options.keep_ratio, None, baselines=[]),
        name=public_name(options.model),
        rounds=0,
    )
    moving = options.output.with_suffix(".gif")
    filmstrip.draw(explained, options.output)
    filmstrip.animate(explained, moving)
    print(f"Written to {options.output} and {moving}")


if __name__ == "__main__":
    with plain_errors():
        main()
