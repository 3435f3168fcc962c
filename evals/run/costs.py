"""Measure what an answer costs: visual tokens, and bytes of KV cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tokenprune.adapters import adapter_for
from tokenprune.evals.models.cache import cache_bytes
from tokenprune.evals.models.video_prompts import placeholder_ids
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.storage.answers import KeptTokens
from tokenprune.report import ImageReport


@dataclass(frozen=True)
class VisualCost:
    """The visual tokens of one question, in the fields that `Answer` has too."""

    n_visual: int
    n_kept: int
    n_mean: float
    kept: tuple[KeptTokens, ...] = ()


def visual_costs(model: Any, processor: Any, setup: Setup, handle: Any, input_ids: torch.Tensor) -> list[VisualCost]:
    """Return the cost of each row of `input_ids`: from the handle's report, else by placeholder tokens."""
    if handle is None:
        placeholders = torch.isin(input_ids, torch.tensor(placeholder_ids(processor)).to(input_ids)).sum(1).tolist()
        return [VisualCost(setup.n_visual(processor, count), count, float(count)) for count in placeholders]
    n_layers, images = len(adapter_for(model).layers), handle.report.images
    return [_reported([image for image in images if image.row == row], n_layers) for row in range(len(input_ids))]


def _reported(images: Sequence[ImageReport], n_layers: int) -> VisualCost:
    return VisualCost(
        n_visual=sum(image.n_visual for image in images),
        n_kept=sum(image.n_kept for image in images),
        n_mean=sum(len(image.kept_at(layer)) for image in images for layer in range(n_layers)) / n_layers,
        kept=tuple(KeptTokens.of(image.kept.cpu().numpy(), image.n_visual, image.grids) for image in images),
    )


def kv_cache_bytes(model: Any, inputs: Any) -> int:
    """Return the size of the cache tensors after the prefill of one question, encoded alone."""
    output = model.generate(**inputs, do_sample=False, max_new_tokens=1, return_dict_in_generate=True)
    return cache_bytes(output)
