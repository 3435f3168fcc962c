"""`tokenprune adapt`: train an adapter for a pruned model."""

from argparse import ArgumentParser, Namespace

from tokenprune.evals.adapt.settings import AdaptationSettings
from tokenprune.evals.arguments.fields import add_fields, given

EXTRA = "adapt"


def add_options(parser: ArgumentParser) -> None:
    add_fields(parser, AdaptationSettings)


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
    adapted = adapt(**given(options, AdaptationSettings), console=screen)
    first, last = adapted.losses[0][1], adapted.losses[-1][1]
    screen.print(f"Loss {first:.3f} at the start, {last:.3f} at the end. Adapter: {adapted.adapter}.")
    if (rise := highest_rise(adapted.losses)) is not None:
        step, loss = rise
        screen.print(
            f"The loss had risen to {loss:.3f} by step {step}: try a --learning-rate below {options.learning_rate:g}."
        )
    screen.print(f'PeftModel.from_pretrained(model, "{adapted.adapter}")  # from peft')
