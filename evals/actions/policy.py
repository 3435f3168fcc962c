"""Load a robot policy, and ask it for actions."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters import ADAPTERS
from tokenprune.adapters.decoder.denoising import Policy
from tokenprune.adapters.tested import read_tested
from tokenprune.errors import DataError, UnsupportedError
from tokenprune.evals.actions.observation import Observation
from tokenprune.evals.models.loading import named, read_config

#: The types of models that are policies, and their classes.
POLICIES = {
    row.model_type: row.class_name
    for row in read_tested().values()
    if issubclass(ADAPTERS.get(row.class_name, object), Policy)
}


def load_policy(name: str, dtype: str = "float32") -> tuple[Any, Any]:
    """Return (policy, processor) from a folder or a Hugging Face name, on the GPU if there is one.

    DataError if there is no such model, it cannot predict actions, or it is in LeRobot's format; UnsupportedError if
    the installed transformers lacks its class.
    """
    import transformers

    config = read_config(name)
    kind = config.get("model_type")
    if kind is None and config.get("type") in POLICIES:
        raise DataError(
            f"{name}: a policy in LeRobot's format, which has no processor of transformers; convert it as "
            f"evals/actions/README.md says, and name the new folder"
        )
    if kind not in POLICIES:
        raise DataError(
            f"{name}: its config.json describes a {kind!r} model, which is not a robot policy ({', '.join(POLICIES)})"
        )
    if not hasattr(transformers, POLICIES[kind]):
        raise UnsupportedError(
            f"{name}: transformers {transformers.__version__} has no {POLICIES[kind]}. Type: pip install --upgrade "
            f"transformers"
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
    images, state = observation.open_images(), None
    if observation.state is not None:
        _check_width(policy, processor, observation.where, len(observation.state))
        state = torch.tensor([observation.state])
    elif not getattr(processor, "state_in_prompt", False):
        raise DataError(f'{observation.where}: no state, which the policy needs; add "state": [...]')
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
    return _n_statistics(processor, "actions") or policy.config.max_action_dim


def _check_width(policy: Any, processor: Any, where: str, width: int) -> None:
    takes = _n_statistics(processor, "state") or min(width, getattr(policy.config, "max_state_dim", width))
    if width != takes:
        raise DataError(f"{where}: a state of {width} numbers; the policy takes {takes}")


def _n_statistics(processor: Any, feature: str) -> int | None:
    """Return how many numbers a processor has statistics of, quantiles or means; None if it has none."""
    stored = (getattr(processor, f"{feature}_{name}", None) for name in ("q01", "mean"))
    return next((len(values) for values in stored if values is not None), None)
