"""Where a strategy prunes inside the language model, and what it keeps there, checked."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import CHECKPOINTED, recomputes_hooks
from tokenprune.errors import PruningError, SettingError, UnsupportedError
from tokenprune.selection import Selection
from tokenprune.sequence.masks import FULL
from tokenprune.strategy import Stage, StagedStrategy
from tokenprune.strategy.base import check_is_selection, strategy_call
from tokenprune.strategy.staged import valid_stages
from tokenprune.tokens.stages import StageTokens


def checked_stages(strategy: StagedStrategy, adapter: ModelAdapter) -> tuple[Stage, ...]:
    """The strategy's stages.

    Raises SettingError unless they ascend through the decoder layers after the first, and UnsupportedError for a model
    with layers that do not attend to all tokens before, or that must all hold the same tokens.
    """
    n_layers = len(adapter.layers)
    stages = valid_stages(strategy, n_layers)
    if stages and adapter.only_before is not None:
        raise UnsupportedError(
            f"{type(strategy).__name__} prunes inside the language model, and for {adapter.description} only pruning "
            f"before the language model is supported: {adapter.only_before}. Use a strategy without stages, such as "
            f"{_without_stages(strategy)}."
        )
    kinds = enumerate(adapter.decoder.layers.kinds)
    number, kind = next(((number, kind) for number, kind in kinds if kind != FULL), (None, None))
    if stages and kind is not None:
        raise UnsupportedError(
            f"{type(strategy).__name__} prunes inside the language model, and decoder layer {number} of "
            f"{adapter.description} is {kind!r}: where any layer is not {FULL!r}, only pruning before the language "
            f"model is supported. Use a strategy without stages, such as {_without_stages(strategy)}."
        )
    layers = [stage.layer for stage in stages]
    early = next((layer for layer in layers if layer < adapter.first_stage), None)
    if early is not None and adapter.first_stage > 1:
        raise UnsupportedError(
            f"{type(strategy).__name__} drops visual tokens before decoder layer {early}, and {adapter.description} "
            f"adds features to them up to layer {adapter.first_stage}. Use stages from that layer on, or a strategy "
            f"without, such as FoPru."
        )
    if layers != sorted(set(layers)) or not all(0 < layer < n_layers for layer in layers):
        raise SettingError(
            f"{type(strategy).__name__}: stages at layers {layers} do not ascend within 1..{n_layers - 1}, the decoder "
            f"layers of this model after the first."
        )
    return stages


def check_runs_once(strategy: StagedStrategy, adapter: ModelAdapter, staged: Mapping[int, nn.Module]) -> None:
    """Raise PruningError if activation checkpointing runs decoder layers again in the backward pass, together with the
    code that shortens their input: by then, it is unknown which tokens were left.

    staged: the layers whose input is shortened, by number, as they were when the model was patched.
    """
    if CHECKPOINTED in adapter.language_model._modules:
        raise PruningError(
            f"{type(strategy).__name__} prunes inside the language model, and torch's activation checkpointing runs "
            f"all of it again in the backward pass, when its tokens are gone. Put it around the decoder layers, or "
            f"prune before the language model."
        )
    for number, module in staged.items():
        layer = adapter.layers[number]
        if recomputes_hooks(layer, module):
            whose, other = "this transformers", "use a newer transformers"
            if CHECKPOINTED in layer._modules:  # put around it since
                whose, other = "torch", "call patch() again"
            raise PruningError(
                f"{type(strategy).__name__} prunes inside the language model, and the activation checkpointing of "
                f"{whose} runs decoder layers again in the backward pass, when their tokens are gone. Switch it off, "
                f"{other}, or prune before the language model."
            )


def _without_stages(strategy: StagedStrategy) -> str:
    """The alternative to suggest: the strategy itself, if it can do without stages."""
    return f"{type(strategy).__name__}(progressive=False)" if hasattr(strategy, "progressive") else "FoPru"


def checked_stage_selection(strategy: StagedStrategy, stage: Stage, tokens: StageTokens) -> Selection:
    """What the strategy keeps from a stage on. Raises PruningError unless it keeps to the stage's budget."""
    allowed = stage.budget(tokens.n_visual)
    if allowed >= tokens.n_left and not stage.at_most:  # nothing to choose
        return Selection.all(tokens.n_left, tokens.left.device, tokens.scores)
    with strategy_call(strategy, "select_at", tokens.features):
        selection = strategy.select_at(stage, tokens)
    name = type(strategy).__name__
    check_is_selection(strategy, "select_at", selection, tokens.n_left, "that are left")
    if len(selection.kept) > allowed:
        raise PruningError(
            f"{name}.select_at kept {len(selection.kept)} visual tokens from layer {stage.layer} on; its budget is "
            f"{allowed} of {tokens.n_visual}. Keep stage.budget(tokens.n_visual) of them."
        )
    if not stage.at_most and len(selection.kept) < allowed:
        raise PruningError(
            f"{name}.select_at kept {len(selection.kept)} visual tokens from layer {stage.layer} on; its budget is "
            f"{allowed}. Keep exactly that many, or give the stage at_most=True."
        )
    return selection
