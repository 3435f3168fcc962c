"""`tokenprune layers`: which decoder layers a model can skip, or how many visual tokens each of them needs."""

from argparse import ArgumentParser, Namespace

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.arguments.parser import at_least

EXTRA = "evals"
SKIPPED = 1


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--skip", type=at_least(0), metavar="N", help=f"number of layers to skip (default: {SKIPPED})")
    parser.add_argument(
        "--block",
        action="store_true",
        help="skip consecutive layers: the block that rotates the last token's hidden state least",
    )
    parser.add_argument(
        "--stages",
        type=at_least(1),
        metavar="N",
        help="calibrate AdaToken instead: print a schedule with this many stages (default: none)",
    )
    shared.add_option(parser, "model", shared.MODEL)
    shared.add_calibration(parser)
    shared.add_dtype(parser, "float32")


def run(options: Namespace) -> None:
    """Rank decoder layers by how little they change their input.

    Runs the model on a few questions, without reading the labels, and prints the layers that PAR(skip=...) can leave
    out. With --stages, prints how many visual tokens the layers need, as a schedule for AdaToken.
    """
    from rich.table import Table

    from tokenprune.errors import SettingError
    from tokenprune.evals.cli.output import console
    from tokenprune.evals.models.loading import load_model
    from tokenprune.evals.reading.allowed import allowing
    from tokenprune.evals.search.calibration import draw_questions
    from tokenprune.evals.search.layers import block_distances, block_to_skip, layer_changes, layers_to_skip

    if options.stages is not None and (options.block or options.skip is not None):
        raise SettingError("--skip and --block have no effect with --stages. Leave out either them or --stages.")
    n_skipped = SKIPPED if options.skip is None else options.skip
    with allowing(options.image_root, options.max_image_pixels):
        questions, _ = draw_questions(
            options.model, options.data, options.split, options.questions, options.seed, console(160).print
        )
        model, processor = load_model(options.model, options.dtype)
        if options.stages is not None:
            from tokenprune.evals.search.adatoken import calibrated

            strategy = calibrated(model, processor, questions, options.stages)
            stages = ", ".join(f"({layer}, {share:.4f})" for layer, share in strategy.schedule or ())
            call = f"tokenprune.AdaToken(keep_ratio={strategy.keep_ratio:.6f}, schedule=({stages},))"
            console(160).print(f"tokenprune.patch(model, {call})")
            return
        if options.block and n_skipped:
            changes = block_distances(model, processor, questions, n_skipped)
            skipped, heading = block_to_skip(changes, n_skipped), "angle of the block from here / pi"
        else:
            changes = layer_changes(model, processor, questions)
            skipped, heading = layers_to_skip(changes, n_skipped), "1 - cosine"
    table = Table("layer", heading, "", title=f"Mean change over {options.questions} questions")
    for number, change in enumerate(changes):
        table.add_row(str(number), f"{change:.4f}", "skipped" if number in skipped else "")
    screen = console(80)
    screen.print(table)
    screen.print(f"tokenprune.patch(model, tokenprune.PAR(keep_ratio=0.25, skip={skipped}))")
