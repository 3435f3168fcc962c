"""Measure what an answer costs: visual tokens, and bytes of KV cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tokenprune.adapters import adapter_for
from tokenprune.evals.models.cache import cache_bytes
from tokenprune.evals.models.greedy import GREEDY
from tokenprune.evals.models.video_prompts import placeholder_ids
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.storage.answers import KeptTokens
from tokenprune.report import ImageReport, Report


@dataclass(frozen=True)
class VisualCost:
    """The visual tokens of one question, in the same fields as `Answer`."""

    n_visual: int
    n_kept: int
    n_mean: float
    kept: tuple[KeptTokens, ...] = ()


def visual_costs(model: Any, processor: Any, setup: Setup, handle: Any, input_ids: torch.Tensor) -> list[VisualCost]:
    """Return the cost of each row of `input_ids`: from the handle's report, else by placeholder tokens."""
    if handle is None:
        placeholders = torch.tensor(placeholder_ids(model.config)).to(input_ids)
        counts = torch.isin(input_ids, placeholders).sum(1).tolist()
        return [VisualCost(setup.n_visual(processor, count), count, float(count)) for count in counts]
    layers, images = executed_layers(model, handle.report), handle.report.images
    placed = has_grid(model)
    return [_reported([image for image in images if image.row == row], layers, placed) for row in range(len(input_ids))]


def has_grid(model: Any) -> bool:
    """Whether a model's visual tokens have places in the image; a resampler's, as in Idefics2, do not."""
    return "grid" in adapter_for(model).offers


def executed_layers(model: Any, report: Report) -> list[bool]:
    """Return, for each decoder layer of a patched model, whether it is executed; one that is skipped sees no token."""
    return [layer not in report.skipped for layer in range(len(adapter_for(model).layers))]


def mean_kept(image: ImageReport, executed: Sequence[bool]) -> float:
    """Return how many visual tokens of an image a decoder layer sees, averaged over all layers."""
    return sum(len(image.kept_at(layer)) for layer, runs in enumerate(executed) if runs) / len(executed)


def _reported(images: Sequence[ImageReport], executed: Sequence[bool], placed: bool) -> VisualCost:
    return VisualCost(
        n_visual=sum(image.n_visual for image in images),
        n_kept=sum(image.n_kept for image in images),
        n_mean=sum(mean_kept(image, executed) for image in images),
        kept=tuple(KeptTokens.of(image.kept.cpu().numpy(), image.layout) for image in images if placed),
    )


def kv_cache_bytes(model: Any, inputs: Any) -> int:
    """Return the size of the cache tensors after the prefill of one question, encoded alone."""
    output = model.generate(**inputs, **GREEDY, max_new_tokens=1, return_dict_in_generate=True)
    return cache_bytes(output)
