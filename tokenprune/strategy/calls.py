"""Calls the methods of a strategy, and checks the types of what they return; budgets are checked by the callers. Errors
name the strategy and the method, and say what to return."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import index
from typing import Any

from torch import Tensor

from tokenprune.checks import is_integer
from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Selection
from tokenprune.selection.precision import without_autocast
from tokenprune.strategy.base import Strategy
from tokenprune.strategy.stage import Stage
from tokenprune.strategy.staged import StagedStrategy


@contextmanager
def strategy_call(strategy: Strategy, method: str, *inputs: Tensor) -> Iterator[None]:
    """Wrap the call of a strategy's method with `inputs`: disables torch.autocast, and prefixes PruningError and
    SettingError with the names of the strategy and the method.

    Raises PruningError if the method has changed one of `inputs` in place, which torch.inference_mode hides, or if it
    raised an error while one of them has NaN.
    """
    name = type(strategy).__name__
    before = [_version(tensor) for tensor in inputs]
    try:
        with without_autocast(inputs[0].device):
            yield
    except Exception as error:
        if any(bool(tensor.isnan().any()) for tensor in inputs):
            raise PruningError(
                f"{name}.{method}: what it was given has NaN (not a number). If the model is in float16, load it in "
                f"bfloat16 or float32; else look for pixels or weights that are not finite."
            ) from error
        if not isinstance(error, PruningError | SettingError) or str(error).startswith((f"{name}.", f"{name}:")):
            raise
        raise type(error)(f"{name}.{method}: {error}") from error
    if before != [_version(tensor) for tensor in inputs]:
        raise PruningError(
            f"{name}.{method} changed tensors of its tokens in place. Others read them too, and what the model gets "
            f"does not change. Work on copies, such as tokens.features.clone(), which .float() makes of float16 "
            f"and bfloat16 only; to change kept tokens, return a Selection with a Merge."
        )


def check_is_selection(strategy: Strategy, method: str, returned: object, n: int, which: str = "") -> None:
    """Raise PruningError unless a strategy's method has returned a Selection over `n` visual tokens."""
    if isinstance(returned, Selection) and returned.n_visual == n:
        return
    found = f"a Selection over {returned.n_visual}" if isinstance(returned, Selection) else type(returned).__name__
    tokens = f"the {n} visual tokens {which}" if which else f"{n} visual tokens"
    raise PruningError(
        f"{type(strategy).__name__}.{method} returned {found}; it must return a Selection over {tokens}: "
        f"Selection(kept, {n}), with their indices in a LongTensor, or Selection.best(scores, n_kept)."
    )


def valid_budget(strategy: Strategy, n_visual: int) -> int:
    """How many of `n_visual` tokens the strategy may keep before the language model."""
    returned: Any = strategy.budget(n_visual)
    try:
        most = index(returned)  # takes numpy's integers and one-element tensors, too
    except TypeError:
        most = 0
    if most > 0:
        return most
    raise PruningError(
        f"{type(strategy).__name__}.budget({n_visual}) returned {returned!r}; it must return how many visual tokens "
        f"may be kept, an integer of at least 1."
    )


def check_layers(strategy: Strategy, method: str, returned: object) -> None:
    """Raise SettingError unless a strategy's method has returned the numbers of layers."""
    if not isinstance(returned, Sequence) or not all(map(is_integer, returned)):
        raise SettingError(
            f"{type(strategy).__name__}.{method} returned {returned!r}; it must return a tuple with the numbers of "
            f"layers, such as (2, 5), or () for none."
        )


def check_stages(strategy: Strategy, method: str, returned: object, kind: type, example: str) -> None:
    """Raise SettingError unless a strategy's method has returned stages of a kind, each with a budget."""
    if not isinstance(returned, Sequence) or not all(isinstance(stage, kind) for stage in returned):
        raise SettingError(
            f"{type(strategy).__name__}.{method} returned {returned!r}; it must return a tuple of {kind.__name__}, "
            f"such as ({example},), or () for none."
        )
    for stage in returned:
        if stage.keep_ratio is None and stage.keep is None:
            raise SettingError(
                f"{type(strategy).__name__}.{method} returned {stage!r}, which has no budget; write {example}."
            )


def valid_stages(strategy: StagedStrategy, n_layers: int) -> tuple[Stage, ...]:
    """The strategy's stages in a language model of `n_layers`."""
    stages = strategy.stages(n_layers)
    check_stages(strategy, "stages", stages, Stage, "Stage(n_layers // 2, keep_ratio=0.25)")
    return tuple(stages)


def valid_skips(strategy: StagedStrategy, n_layers: int) -> tuple[int, ...]:
    """The decoder layers, of `n_layers`, that the strategy skips."""
    layers = strategy.skipped_layers(n_layers)
    check_layers(strategy, "skipped_layers", layers)
    return tuple(layers)


def valid_interval(strategy: Strategy) -> int:
    """The interval, in denoising steps, at which the strategy computes the action expert."""
    every = strategy.recompute_every
    if is_integer(every) and every > 0:
        return int(every)
    raise SettingError(
        f"{type(strategy).__name__}.recompute_every is {every!r}; it must be a number of denoising steps, 1 or more."
    )


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version
