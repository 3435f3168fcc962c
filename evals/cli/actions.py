"""`tokenprune actions`: how far pruning moves the actions of a robot policy."""

from argparse import ArgumentParser, Namespace

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.arguments.parser import a_path, at_least

EXTRA = "evals"


def add_options(parser: ArgumentParser) -> None:
    shared.add_required_model(parser, "folder or Hugging Face name of a PI0 or PI0.5")
    parser.add_argument(
        "--data",
        type=a_path,
        required=True,
        metavar="DIR",
        help="observations: a folder with observations.jsonl, or a LeRobot data set",
    )
    shared.add_option(parser, "strategy", shared.strategies(), default=["efficientvla"])
    shared.add_option(parser, "keep_ratio", shared.keep_ratios(), default=[0.5, 0.25])
    shared.add_option(parser, "position_ids", shared.position_ids(), default=None)
    parser.add_argument(
        "--limit",
        type=at_least(1),
        default=100,
        metavar="N",
        help="number of observations to use, evenly spaced",
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, metavar="N", help="seed of the noise that actions start from"
    )
    shared.add_dtype(parser, "float32")
    shared.add_allowed(parser)
    parser.add_argument("--output", type=a_path, metavar="FILE", help="JSON file to write the results to")


def run(options: Namespace) -> None:
    """Compare a pruned robot policy's actions with the unpruned policy's.

    Open loop, on recorded observations: every call starts from the same noise, and no robot moves. To judge an error,
    compare it with the effect of drawing new noise. Only closed-loop tests show whether the robot still succeeds.

      tokenprune actions --model my_policy --data recordings --strategy efficientvla --keep-ratio 0.25
    """
    import json
    from dataclasses import asdict

    from tqdm import tqdm

    from tokenprune.evals.actions.compare import compare
    from tokenprune.evals.actions.policy import load_policy
    from tokenprune.evals.actions.recordings import load_observations
    from tokenprune.evals.actions.table import table
    from tokenprune.evals.cli.output import console
    from tokenprune.evals.reading.allowed import allowing
    from tokenprune.evals.run.questions import evenly
    from tokenprune.evals.run.setups import pruned_setups
    from tokenprune.evals.storage.files import check_file, naming

    screen = console(140)
    if options.output is not None:
        check_file(options.output)
    pruned = pruned_setups(options.strategy, options.keep_ratio, options.position_ids)
    with allowing(options.image_root, options.max_image_pixels):
        observations = evenly(load_observations(options.data), options.limit)
        policy, processor = load_policy(options.model, options.dtype)
        results = compare(
            policy, processor, observations, pruned, options.seed, lambda every: iter(tqdm(every, disable=None))
        )
    screen.print(table(results))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with naming(options.output):
            options.output.write_text(
                json.dumps([asdict(result) for result in results], indent=1) + "\n", encoding="utf-8"
            )
        screen.print(f"Written to {options.output}")
