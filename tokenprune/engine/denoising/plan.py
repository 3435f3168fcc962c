"""Where a strategy acts between denoising steps, checked against the model."""

from __future__ import annotations

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.decoder.denoising import BlockDiffusion, Policy
from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.sequence.masks import FULL
from tokenprune.strategy import DenoisingStage, StagedStrategy, Strategy
from tokenprune.strategy.staged import check_stages, valid_interval


def check_denoises(strategy: Strategy, adapter: ModelAdapter) -> None:
    """Raise UnsupportedError for a strategy that acts between denoising steps, with a model that has none."""
    late = isinstance(strategy, StagedStrategy) and bool(strategy.step_stages)
    if late and not isinstance(adapter, BlockDiffusion):
        raise UnsupportedError(
            f"{type(strategy).__name__} prunes between denoising steps, and {adapter.description} has none. Use a "
            f"strategy that prunes before the language model, such as FoPru."
        )
    if strategy.requires_expert and not isinstance(adapter, Policy):
        raise UnsupportedError(
            f"{type(strategy).__name__} computes an action expert in every {valid_interval(strategy)} denoising "
            f"steps only, and {adapter.description} has none. Patch a robot policy, or compute every step: reuse=1."
        )


def checked_step_stages(strategy: StagedStrategy) -> tuple[DenoisingStage, ...]:
    """The strategy's stages. Raises SettingError unless their steps ascend from 1 on."""
    stages, name = strategy.step_stages, type(strategy).__name__
    check_stages(strategy, "step_stages", stages, DenoisingStage, "DenoisingStage(4, keep_ratio=0.25)")
    steps = [stage.step for stage in stages]
    if steps != sorted(set(steps)) or not all(step > 0 for step in steps):
        raise SettingError(f"{name}.step_stages: steps {steps} do not ascend from 1 on, the first with a step before.")
    return tuple(stages)


def checked_canvas_layer(strategy: StagedStrategy, adapter: ModelAdapter) -> int:
    """The layer of the denoiser whose attention the strategy reads. Raises SettingError for one that does not attend to
    the whole prompt."""
    kinds, wanted = adapter.decoder.layers.kinds, strategy.canvas_layer
    number = len(kinds) - 1 if wanted is None else wanted
    if not -len(kinds) <= number < len(kinds) or kinds[number] != FULL:
        whole = [i for i, kind in enumerate(kinds) if kind == FULL]
        raise SettingError(
            f"{type(strategy).__name__}: layer={wanted} of the denoiser does not attend to the whole prompt. "
            f"Choose from {whole}, or leave layer=None."
        )
    return number % len(kinds)
