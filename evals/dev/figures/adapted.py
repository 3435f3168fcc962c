"""The bundled model with its adapter, in a figure beside the model without it."""

import warnings
from dataclasses import replace

from peft import PeftModel

from tokenprune.evals.dev.tables.accuracy.adapted import ADAPTED
from tokenprune.evals.explain.explain import explain
from tokenprune.evals.explain.outcomes import Explanation
from tokenprune.evals.models.bundled import ADAPTER, MODEL
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.run.setups import Setup, make_setups

#: What the adapter was trained with.
STRATEGY = "fopru:score=cls,layer=-2,cells=auto"


def adapted_setup(keep_ratio: float) -> Setup:
    """Return the setup of the adapted model, labelled as in the tables."""
    (setup,) = make_setups([STRATEGY], [keep_ratio], ["original"], baselines=[])
    return replace(setup, label=f"{setup.label}, {ADAPTED}")


def with_adapted(explained: Explanation, setup: Setup) -> Explanation:
    """Return the explanation with one more outcome: what the adapted model does under `setup`."""
    model, processor = load_model(str(MODEL), "auto")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # PEFT reads the old name
        adapted = PeftModel.from_pretrained(model, str(ADAPTER)).merge_and_unload()
    own = explain(
        adapted, processor, explained.image, explained.question, [setup], true_box=explained.true_box, rounds=0
    )
    return replace(explained, outcomes=[*explained.outcomes, *own.outcomes[1:]])
