"""Load a robot policy, and ask it for actions."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.errors import DataError
from tokenprune.evals.actions.observation import Observation
from tokenprune.evals.models.loading import named, read_config

#: The types of models that are policies, and their classes.
POLICIES = {"pi0": "PI0ForConditionalGeneration"}


def load_policy(name: str, dtype: str = "float32") -> tuple[Any, Any]:
    """Return (policy, processor) from a folder or a Hugging Face name, on the GPU if there is one.

    DataError if there is no such model, or it cannot predict actions.
    """
    import transformers

    kind = read_config(name).get("model_type")
    if kind not in POLICIES:
        raise DataError(
            f"{name}: its config.json describes a {kind!r} model, which is not a robot policy ({', '.join(POLICIES)})"
        )
    with named(name, "processor"):
        processor = transformers.AutoProcessor.from_pretrained(name)
    with named(name, "weights"):
        policy = getattr(transformers, POLICIES[kind]).from_pretrained(
            name, dtype=dtype if dtype == "auto" else getattr(torch, dtype)
        )
    return policy.to("cuda" if torch.cuda.is_available() else "cpu").eval(), processor


def prepare(policy: Any, processor: Any, observation: Observation) -> dict[str, Any]:
    """Return the policy's inputs, as its processor makes them. DataError for an observation that it does not take."""
    if observation.state is None:
        raise DataError(f'{observation.where}: no state, which the policy needs; add "state": [...]')
    most = policy.config.max_state_dim
    if len(observation.state) > most:
        raise DataError(f"{observation.where}: a state of {len(observation.state)} numbers; the policy takes {most}")
    state, images = torch.tensor([observation.state]), observation.open_images()
    try:
        inputs = processor(images=[images], text=[observation.task], state=state, return_tensors="pt")
    except ValueError as error:  # of a processor without statistics, for instance
        raise DataError(f"{observation.where}: the policy's processor rejects it: {error}") from error
    return {
        name: value.to(policy.device, policy.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def actions_of(policy: Any, inputs: dict[str, Any], seed: int) -> Float[Tensor, "steps width"]:
    """Return the policy's actions from the noise of a seed, in its own normalised units."""
    config = policy.config
    noise = torch.randn(1, config.chunk_size, config.max_action_dim, generator=torch.Generator().manual_seed(seed))
    noise = noise.to(policy.device, policy.dtype)
    return policy.sample_actions(**inputs, noise=noise)[0].float().cpu()


def action_width(policy: Any, processor: Any) -> int:
    """Return how many numbers of an action the robot has; the rest is padding."""
    mean = getattr(processor, "actions_mean", None)
    return policy.config.max_action_dim if mean is None else len(mean)
