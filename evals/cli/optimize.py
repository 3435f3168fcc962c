"""`tokenprune optimize`: search VFlowOpt's settings for a model."""

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from dataclasses import fields
from pathlib import Path
from shlex import quote
from typing import cast

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.arguments.parser import a_path, at_least

EXTRA = "optimize"


def add_options(parser: ArgumentParser) -> None:
    shared.add_option(parser, "model", shared.MODEL)
    shared.add_calibration(parser)
    parser.add_argument(
        "--strategy",
        default="vflowopt",
        metavar="NAME",
        help="vflowopt or a subclass of it (my_module:MyFlow), with settings to hold fixed (vflowopt:layer=-2)",
    )
    shared.add_option(
        parser,
        "keep_ratio",
        shared.KEEP_RATIO,
        default=0.1,
        help="fraction of the visual tokens to keep, averaged over the decoder layers",
    )
    parser.add_argument(
        "--trials", type=at_least(1), default=50, metavar="N", help="number of settings to try, including the defaults"
    )
    parser.add_argument(
        "--state",
        choices=("last_token", "mean_pooled"),
        default="last_token",
        help="hidden state to keep close to the unpruned model's: that of the last prompt token, or the mean over all "
        "tokens after the image",
    )
    parser.add_argument(
        "--recycle", action=BooleanOptionalAction, default=True, help="merge dropped tokens into one per grid cell"
    )
    parser.add_argument(
        "--progressive", action=BooleanOptionalAction, default=True, help="also prune inside the language model"
    )
    parser.add_argument(
        "--layer",
        type=int,
        metavar="N",
        help="vision tower layer that the importance map is computed from (default: the one that feeds the projector)",
    )
    parser.add_argument(
        "--as-released",
        action="store_true",
        help="compute the importance map as in the released code rather than in the paper",
    )
    shared.add_dtype(parser, "float32")
    parser.add_argument(
        "--output",
        type=a_path,
        default=Path("runs/settings.json"),
        metavar="FILE",
        help="settings file to write; a plot and a journal to resume from are written next to it",
    )


def run(options: Namespace) -> None:
    """Search VFlowOpt's settings for a model, on a few unlabelled questions.

    An interrupted search resumes with the same command; a finished one continues with more --trials. Load the file that
    it writes:

      tokenprune.patch(model, "settings.json")
    """
    from tokenprune.errors import SettingError
    from tokenprune.evals.cli.output import console
    from tokenprune.evals.models.loading import load_model, public_name
    from tokenprune.evals.reading.allowed import allowing
    from tokenprune.evals.run.setups import read_strategy
    from tokenprune.evals.search import plot as search_plot
    from tokenprune.evals.search.calibration import draw_questions
    from tokenprune.evals.search.optimize import Names, check_output, optimize
    from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt

    screen, spec = console(200), read_strategy(options.strategy)
    if not issubclass(spec.strategy_class, VFlowOpt):
        raise SettingError(
            f"strategy {options.strategy!r}: optimize searches VFlowOpt's settings, and "
            f"{spec.strategy_class.__name__} does not have them. Use vflowopt or a subclass of VFlowOpt."
        )
    defaults = {field.name: field.default for field in fields(VFlowOpt)}
    options_of_base = {name: getattr(options, name) for name in ("recycle", "progressive", "layer", "as_released")}
    given = {name: value for name, value in options_of_base.items() if value != defaults[name]}
    base = cast(VFlowOpt, spec.make({"keep_ratio": options.keep_ratio, **given}))
    check_output(options.output)
    with allowing(options.image_root, options.max_image_pixels):
        questions, split = draw_questions(
            options.model, options.data, options.split, options.questions, options.seed, screen.print
        )
        model, processor = load_model(options.model, options.dtype)
        record = optimize(
            model,
            processor,
            questions,
            options.output,
            base=base,
            strategy=spec.name,
            state=options.state,
            trials=options.trials,
            seed=options.seed,
            names=Names(public_name(options.model), public_name(str(options.data)), split),
        )
    plot = options.output.with_suffix(".png")
    search_plot.draw(options.output, plot)
    objective = record["search"]["objective"]
    screen.print(
        f"Cosine to the unpruned model: {objective['default']:.5f} with default settings, {objective['best']:.5f} in "
        f"trial {objective['best_trial']} of {len(record['search']['trials'])}."
    )
    screen.print(
        f'Written to {options.output}: tokenprune.patch(model, "{options.output}"). Plot of the search: {plot}.'
    )
    where = f"--model {quote(options.model)} --data {quote(str(options.data))}"
    screen.print(
        f"tokenprune eval {where} --strategy {quote(str(options.output))} --keep-ratio {options.keep_ratio}  # leaves "
        "out the images of the search",
        soft_wrap=True,
    )
