"""`tokenprune adapt`: train an adapter for a pruned model."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tokenprune.evals.cli.arguments import options as shared
from tokenprune.evals.cli.arguments.parser import a_path, at_least, fraction, number

EXTRA = "adapt"


def add_options(parser: ArgumentParser) -> None:
    shared.add_model(parser)
    shared.add_questions(parser, "train on")
    parser.add_argument(
        "--no-labels",
        action="store_false",
        dest="labels",
        help="train on the unpruned model's own answers instead of the labels",
    )
    shared.add_strategy(parser, also="; or downsample, which shrinks the images instead")
    shared.add_keep_ratio(parser, 0.1, "lowest fraction of the visual tokens to keep in a pruned step")
    parser.add_argument(
        "--up-to", type=fraction, default=0.5, metavar="RATIO", help="highest fraction to keep in a pruned step"
    )
    parser.add_argument("--whole", type=number, default=0.25, metavar="SHARE", help="share of steps without pruning")
    parser.add_argument(
        "--part",
        choices=("decoder", "projector", "both"),
        default="decoder",
        help="linear layers to train: the decoder's, those between vision tower and decoder, or both",
    )
    parser.add_argument("--rank", type=at_least(1), default=16, metavar="N", help="LoRA rank")
    parser.add_argument("--steps", type=at_least(1), default=300, metavar="N", help="optimiser steps")
    parser.add_argument("--batch", type=at_least(1), default=8, metavar="N", help="images per forward pass")
    parser.add_argument(
        "--per-image",
        type=at_least(1),
        default=8,
        metavar="N",
        help="maximum number of questions that share an image's tokens, if the model and the strategy allow it",
    )
    parser.add_argument("--accumulate", type=at_least(1), default=1, metavar="N", help="forward passes per step")
    parser.add_argument("--learning-rate", type=number, default=2e-4, metavar="RATE", help="peak learning rate")
    parser.add_argument("--save-every", type=at_least(1), default=50, metavar="N", help="steps between checkpoints")
    shared.add_seed(parser)
    shared.add_dtype(parser)
    shared.add_batch_tokens(
        parser, "in a batch of the unpruned model's own answers (--no-labels), unless questions share an image's tokens"
    )
    parser.add_argument(
        "--output",
        type=a_path,
        default=Path("runs/adapted"),
        metavar="DIR",
        help="folder for the adapter and its checkpoints; the same command resumes the training",
    )


def run(options: Namespace) -> None:
    """Train a plain PEFT adapter while the model is pruned, or its images are shrunk, so that this costs less accuracy.

    First prints how much memory and time the training needs. Interrupted training resumes with the same command. The
    adapter loads without tokenprune:

      model = PeftModel.from_pretrained(model, "runs/adapted/adapter")
    """
    from tokenprune.evals.adapt.adapt import adapt
    from tokenprune.evals.adapt.training import highest_rise
    from tokenprune.evals.cli.output import console

    screen = console(200)
    adapted = adapt(
        options.model,
        data=options.data,
        output=options.output,
        strategy=options.strategy,
        keep_ratio=options.keep_ratio,
        up_to=options.up_to,
        whole=options.whole,
        labels=options.labels,
        part=options.part,
        rank=options.rank,
        steps=options.steps,
        batch=options.batch,
        per_image=options.per_image,
        accumulate=options.accumulate,
        learning_rate=options.learning_rate,
        save_every=options.save_every,
        tasks=options.tasks,
        split=options.split,
        limit=options.limit,
        seed=options.seed,
        dtype=options.dtype,
        batch_tokens=options.batch_tokens,
        image_roots=options.image_root,
        max_image_pixels=options.max_image_pixels,
        console=screen,
    )
    first, last = adapted.losses[0][1], adapted.losses[-1][1]
    screen.print(f"Loss {first:.3f} at the start, {last:.3f} at the end. Adapter: {adapted.adapter}.")
    if (rise := highest_rise(adapted.losses)) is not None:
        step, loss = rise
        screen.print(
            f"The loss had risen to {loss:.3f} by step {step}: try a --learning-rate below {options.learning_rate:g}."
        )
    screen.print(f'PeftModel.from_pretrained(model, "{adapted.adapter}")  # from peft')
