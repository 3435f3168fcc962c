"""AdaToken-3D's calibration (https://arxiv.org/abs/2505.12782): the share of visual tokens that each decoder layer
needs, from the attention between text and image. Only images and questions are needed, no answers.

Deviations from the released code, which pools attention maps 10 x 10 and takes their upper triangle, where a causal map
is zero but for the pooled diagonal: sums are over the attention paid, of whole blocks, without pooling. The curve has
the released form and constraints, which leave one of its four parameters free; that one is searched directly. The
released code fits a curve in per cent to contributions of 0 to 1, which makes it fall to its end within eight layers
whatever they are; here both are shares. Contributions from the same sums are identical to the code's, and the curve's
error is never larger (evals/results/peers.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar

import tokenprune
from tokenprune.adapters import adapter_for
from tokenprune.errors import PruningError, SettingError
from tokenprune.evals.search.calibration import check_not_empty, encode_each
from tokenprune.evals.tasks.base.question import Question
from tokenprune.strategies import AdaToken
from tokenprune.strategy.stage import layers_at
from tokenprune.tokens import TextAttention

#: The share of visual tokens that the curve ends at, and the steepest curve tried, in both directions.
LEAST, STEEPEST = 0.1, 4.0
#: A schedule whose last stage keeps more saves nothing.
NEARLY_ALL = 0.95


@torch.inference_mode()
def calibrated(model: Any, processor: Any, questions: Sequence[Question], n_stages: int) -> AdaToken:
    """Return the strategy with `n_stages` stages at equal distances, whose shares are read off the model's curve and
    rounded to four digits. Stages that would keep every token are left out.

    Its keep_ratio is the average of its schedule. Raises SettingError for a model with fewer layers than stages, and
    for one whose curve has not yet fallen at the last stage.
    """
    intra, inter = attention_sums(model, processor, questions)
    n_layers = len(intra)
    layers = layers_at([(i + 1) / (n_stages + 1) for i in range(n_stages)], n_layers)
    if len(layers) < n_stages or n_layers < 3:
        raise SettingError(f"{n_stages} stages do not fit into {n_layers} decoder layers; ask for fewer.")
    held = remaining_shares(contributions(intra, inter), n_layers)
    shares = [round(float(held[layer - 1]), 4) for layer in layers]
    stages = tuple((layer, share) for layer, share in zip(layers, shares, strict=True) if share < 1)
    if not stages or stages[-1][1] > NEARLY_ALL:
        needed = f"{min(shares):.1%} of the" if stages else "all"
        raise SettingError(
            f"up to layer {layers[-1]} of {n_layers}, this model's attention needs {needed} visual tokens, so "
            f"AdaToken has nothing to prune. Choose a strategy that prunes before the language model."
        )
    lengths = np.diff([0, *layers, n_layers])
    average = float(np.dot(lengths, [1.0, *shares]) / n_layers)
    return AdaToken(keep_ratio=average, schedule=stages)


def attention_sums(model: Any, processor: Any, questions: Sequence[Question]) -> tuple[list[float], list[float]]:
    """Return, for every decoder layer, the attention within the image and that between image and text, averaged over
    questions: the sum of what visual tokens pay each other; and 0.7 times what they pay to the text before them, plus
    0.3 times what the text after them pays to them."""
    check_not_empty(questions)
    n_layers = len(adapter_for(model).layers)
    intra, inter = np.zeros(n_layers), np.zeros(n_layers)
    with tokenprune.probe(model, decoder_layers=range(n_layers)) as seen:
        for question, inputs in encode_each(model, processor, questions):
            images = seen.run(**inputs)
            for number in range(n_layers):
                sums = [block_sums(image.text_attention[number]) for image in images]
                if not np.isfinite(sums).all():
                    raise PruningError(f"{question.id}: layer {number} gives NaN. Load the model in another dtype.")
                intra[number] += sum(within for within, _, _ in sums)
                inter[number] += sum(0.7 * before + 0.3 * after for _, before, after in sums)
    return list(intra / len(questions)), list(inter / len(questions))


def block_sums(attention: TextAttention) -> tuple[float, float, float]:
    """Return the sums of the attention, averaged over heads, that visual tokens pay each other, that they pay to the
    tokens before them, and that the text after them pays to them."""
    visual, text = attention.visual, attention.text
    places = torch.arange(len(attention.real), device=visual.device)
    before = places[attention.real & (places < visual[0])]
    within = attention.from_rows(visual).sum() * len(visual)
    to_before = replace(attention, visual=before).from_rows(visual).sum() * len(visual)
    from_after = attention.from_rows(text).sum() * len(text)
    return float(within), float(to_before), float(from_after)


def contributions(intra: Sequence[float], inter: Sequence[float]) -> list[float]:
    """Return how much each layer but the first contributes, scaled to 0..1: 0.4 times its attention within the image,
    0.3 times that between image and text, and 0.3 times the former summed over layers up to it, weighted by 0.73 after
    the first."""
    own = np.asarray(intra, dtype=float)
    gathered = own[0] + 0.73 * np.cumsum(own[1:])
    values = 0.4 * own[1:] + 0.3 * np.asarray(inter, dtype=float)[1:] + 0.3 * gathered
    spread = values.max() - values.min()
    return list((values - values.min()) / (spread if spread > 0 else 1.0))


def remaining_shares(contribution: Sequence[float], n_layers: int) -> list[float]:
    """Return the share of visual tokens to keep in each layer but the first: the exponential from 1 in layer 1 to LEAST
    after the last that is closest to the contributions and to their changes from layer to layer."""
    layers = np.arange(1, len(contribution) + 1, dtype=float)
    targets = np.asarray(contribution, dtype=float)
    slopes = np.gradient(targets) if len(targets) > 1 else np.zeros(1)

    def error(rate: float) -> float:
        values = curve(layers, rate, n_layers)
        changes = np.gradient(values) if len(values) > 1 else np.zeros(1)
        return float(((values - targets) ** 2).sum() + ((changes - slopes) ** 2).sum())

    tried = np.linspace(-STEEPEST, STEEPEST, 81)  # the error may have several minima
    best = tried[int(np.argmin([error(rate) for rate in tried]))]
    result = minimize_scalar(error, bounds=(best - 0.1, best + 0.1), method="bounded")
    return list(curve(layers, float(result.x), n_layers))


def curve(layers: np.ndarray, rate: float, n_layers: int) -> np.ndarray:
    """Return A exp(-rate x) + D with the A and D that give 1 in layer 1 and LEAST after the last layer."""
    length = n_layers - 1
    if math.isclose(rate * length, 0, abs_tol=1e-6):
        done = (layers - 1) / length
    else:
        done = np.expm1(-rate * (layers - 1)) / np.expm1(-rate * length)
    return 1 + (LEAST - 1) * done
