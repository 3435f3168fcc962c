"""The denoising steps of a block diffusion model, which read the cache that a pruned prompt has filled.

before_prefix      refuses caches that the denoiser could not read
after_prefix       the encoder has filled the cache: a canvas begins
before_step        the denoiser gets the pruned cache, with masks and position IDs to match
  before_attention   records what the canvas attends to, in the step before late-step pruning
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import find_cache, named_arguments
from tokenprune.adapters.decoder.denoising import BlockDiffusion
from tokenprune.engine.cache.pruned import index_of, is_static, settle
from tokenprune.engine.call import CallContext, Forward
from tokenprune.engine.denoising.plan import checked_canvas_layer, checked_step_stages
from tokenprune.engine.denoising.step_cache import StepCache, cached, step_cache, unpruned_bytes
from tokenprune.engine.patch import Register, dynamo_disabled
from tokenprune.engine.prefill import Prefill
from tokenprune.errors import PruningError
from tokenprune.report import Denoising, LateStepReport, Report
from tokenprune.selection import Selection, scores_of_all
from tokenprune.sequence.masks import FULL
from tokenprune.sequence.packing import inverse
from tokenprune.strategy import DenoisingStage, StagedStrategy, Strategy
from tokenprune.strategy.base import check_is_selection, strategy_call
from tokenprune.tokens.stages import StepTokens

#: The attribute of a cache that holds its Canvas. It lives and is copied with the cache.
CANVAS_ATTRIBUTE = "_tokenprune_canvas"


@dataclass(eq=False)
class CachedImage:
    """An image in a cache.

    row: its row of the batch.
    columns: the columns of its cached visual tokens.
    left: the indices of these tokens in the image.
    n_visual: how many visual tokens the image has.
    number: its index in the report; None if the report is of a later prompt.
    """

    row: int
    columns: Int[Tensor, " cached"]
    left: Int[Tensor, " cached"]
    n_visual: int
    number: int | None


@dataclass(eq=False)
class Canvas:
    """The steps of one canvas.

    cached: all images in the cache.
    report: the report of the prompt that brought the last of these images.
    left: the same images, with the tokens that are still read.
    step: how many steps were made so far.
    n_stages: how many stages are decided so far.
    stages: the stages of the strategy that the canvas was begun with.
    dropped: the slots that are no longer read.
    attention: the attention that the canvas paid to each slot in the step before a stage.
    step_cache: what the steps read of the cache; None until it is made, and again after every stage.
    """

    cached: Sequence[CachedImage] = ()
    report: Report | None = None
    left: Sequence[CachedImage] = field(init=False)
    step: int = 0
    n_stages: int = 0
    stages: tuple[DenoisingStage, ...] = ()
    dropped: Bool[Tensor, "batch slots"] | None = None
    attention: Float[Tensor, "batch slots"] | None = None
    step_cache: StepCache | None = None

    def __post_init__(self) -> None:
        self.left = self.cached


class CanvasSteps:
    """The denoiser of one patched model."""

    def __init__(self, strategy: Strategy, adapter: ModelAdapter, context: CallContext, prefill: Prefill) -> None:
        self.strategy, self.adapter, self.prefill, self._context = strategy, adapter, prefill, context
        self.stages: tuple[DenoisingStage, ...] = ()
        self._read_layer = -1
        if isinstance(strategy, StagedStrategy) and (stages := checked_step_stages(strategy)):
            self.stages, self._read_layer = stages, checked_canvas_layer(strategy, adapter)

    @property
    def denoiser(self) -> Any:
        return cast(BlockDiffusion, self.adapter).denoiser

    def register(self, register: Register) -> None:
        register(self.adapter.core.register_forward_pre_hook(self.before_prefix, with_kwargs=True))
        register(self.adapter.language_model.register_forward_hook(self.after_prefix, with_kwargs=True))
        register(self.denoiser.register_forward_pre_hook(self.before_step, with_kwargs=True))
        if self.stages:
            attention = cast(BlockDiffusion, self.adapter).canvas_attention(self._read_layer)
            register(attention.register_forward_pre_hook(self.before_attention, with_kwargs=True))

    @dynamo_disabled
    def before_prefix(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if is_static(find_cache(named_arguments(module, args, kwargs))):
            raise PruningError(
                "a static cache, whose steps transformers compiles as a whole, cannot be pruned in a block diffusion "
                "model. Generate with a dynamic cache, which is the default."
            )

    @dynamo_disabled
    def after_prefix(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        cache = find_cache(named_arguments(module, args, kwargs), output)
        before, forward = getattr(cache, CANVAS_ATTRIBUTE, None) or Canvas(), self._context.forward
        images, report = before.cached, before.report
        if forward is not None and forward.report is not None:
            images = [*(replace(image, number=None) for image in images), *images_of(forward)]
            report = forward.report
        setattr(cache, CANVAS_ATTRIBUTE, Canvas(images, report))

    @dynamo_disabled
    def before_step(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[tuple[()], dict[str, Any]] | None:
        kwargs = named_arguments(module, args, kwargs)
        cache = find_cache(kwargs)
        if cache is None:  # the model raises the error itself
            return None
        settle(cache)
        now = getattr(cache, CANVAS_ATTRIBUTE, None) or Canvas()
        if now.step and kwargs.get("self_conditioning_logits") is None:  # another canvas from the same prompt
            now = Canvas(now.cached, now.report)
        setattr(cache, CANVAS_ATTRIBUTE, now)
        if now.step == 0:
            now.stages = self.stages
        elif now.stages != self.stages:
            raise PruningError(
                "this canvas was begun with another strategy, and its steps cannot go on with this one. Begin another "
                "canvas: call the model without self_conditioning_logits."
            )
        while now.n_stages < len(self.stages) and self.stages[now.n_stages].step <= now.step:
            self._decide(now, cache, self.stages[now.n_stages])
        mask, n_canvas = kwargs.get("decoder_attention_mask"), kwargs["decoder_input_ids"].shape[1]
        if now.step_cache is None or now.step_cache.made_from is not mask:
            dtype = self.adapter.decoder.mask_dtype(self.denoiser.dtype)
            now.step_cache = step_cache(cache, self.adapter.decoder.layers, mask, n_canvas, dtype, now.dropped)
        now.step += 1
        _, n_columns = cached(cache)
        self._report(now, cache, n_columns)
        index = index_of(cache)
        if index is None and now.dropped is None:
            return None
        ids = kwargs.get("decoder_position_ids")
        if ids is None:
            ids = torch.arange(n_columns, n_columns + n_canvas, device=kwargs["decoder_input_ids"].device)[None]
        shift = None if index is None else index.shift
        given = {
            "decoder_position_ids": ids if shift is None else ids - shift[:, None].to(ids.dtype),
            "decoder_attention_mask": now.step_cache.masks,
        }
        given |= {name: now.step_cache.cache for name, value in kwargs.items() if value is cache}
        return (), {**kwargs, **given}

    @dynamo_disabled
    def before_attention(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        kwargs = named_arguments(module, args, kwargs)
        cache = find_cache(kwargs)
        now: Canvas | None = getattr(cache, CANVAS_ATTRIBUTE, None)
        if now is None or now.step_cache is None or now.n_stages == len(self.stages):
            return
        if now.step != self.stages[now.n_stages].step:  # `step` counts from 1 here, so it numbers the next step
            return
        queries, keys = cast(BlockDiffusion, self.adapter).canvas_heads(self._read_layer, kwargs)
        held = cache.layers[self._read_layer].keys
        weights = canvas_attention(queries, torch.cat([held, keys.to(held.dtype)], 2), kwargs.get("attention_mask"))
        now.attention = now.step_cache.spread(FULL, weights[:, : held.shape[2]].detach())

    def _decide(self, now: Canvas, cache: Any, stage: DenoisingStage) -> None:
        """Let the strategy select at a stage, and drop the rest from then on."""
        assert isinstance(self.strategy, StagedStrategy)
        if now.attention is None:
            raise PruningError(
                "the attention of the step before was not seen, because modules of the denoiser were replaced after "
                "patch(). Call patch() again, and begin another canvas."
            )
        slots, n_columns = cached(cache)
        place = inverse(slots.columns, slots.valid, n_columns)
        dropped = torch.zeros_like(slots.valid) if now.dropped is None else now.dropped.clone()
        images, reports = [], {}
        for image in now.left:
            held = place[image.row, image.columns]
            tokens = StepTokens(now.attention[image.row, held], image.left, image.n_visual)
            selection = checked_step_selection(self.strategy, stage, tokens)
            dropped[image.row, held] = True
            dropped[image.row, held[selection.kept]] = False
            still, columns = image.left[selection.kept], image.columns[selection.kept]
            images.append(replace(image, columns=columns, left=still))
            if image.number is not None:
                scores = scores_of_all(selection.scores, image.left, image.n_visual)
                reports[image.number] = LateStepReport(stage.step, still, scores)
        if now.report is not None:
            images_now = [
                replace(image, late_steps=(*(image.late_steps if now.n_stages else ()), reports[number]))
                for number, image in enumerate(now.report.images)
            ]
            now.report = replace(now.report, images=images_now)
        now.left, now.dropped, now.attention, now.step_cache = images, dropped, None, None
        now.n_stages += 1

    def _report(self, now: Canvas, cache: Any, n_columns: int) -> None:
        """Count a step on a cache with images."""
        if now.report is None or now.step_cache is None:
            return
        done = now.report.denoising or Denoising()
        unpruned = unpruned_bytes(cache, self.adapter.decoder.layers, n_columns)
        now.report = replace(now.report, denoising=done.after_step(now.step_cache.n_bytes, unpruned))
        self.prefill.publish(now.report)


def images_of(forward: Forward) -> list[CachedImage]:
    """The images that a call of the encoder brought, as the cache holds them."""
    assert forward.report is not None
    visual = forward.incoming.visual
    columns = {(row, name): mask[row].nonzero()[:, 0] for name, mask in visual.items() for row in range(len(mask))}
    images = []
    for number, image in enumerate(forward.report.images):
        place = image.row, image.modality
        own, columns[place] = columns[place][: image.n_visual], columns[place][image.n_visual :]
        kept = forward.incoming.n_columns + own.to(image.kept.device)[image.kept]
        images.append(CachedImage(image.row, kept, image.kept, image.n_visual, number))
    return images


def canvas_attention(
    queries: Float[Tensor, "batch heads canvas width"],
    keys: Float[Tensor, "batch key_heads tokens width"],
    mask: Tensor | None,
) -> Float[Tensor, "batch tokens"]:
    """The attention that the canvas pays to each token, averaged over heads and canvas positions, in float32.

    queries: scaled. mask: over the tokens, bool or additive.
    """
    groups = rearrange(queries.float(), "b (k g) c w -> b k g c w", k=keys.shape[1])
    logits = groups @ keys.float()[:, :, None].transpose(-1, -2)
    if mask is not None:
        mask = mask[:, :, None]
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(-1).mean((1, 2, 3))


def checked_step_selection(strategy: StagedStrategy, stage: DenoisingStage, tokens: StepTokens) -> Selection:
    """What the strategy keeps from a stage on. Raises PruningError unless that is exactly the stage's budget."""
    allowed = stage.budget(tokens.n_visual)
    if allowed >= tokens.n_left:
        return Selection.all(tokens.n_left, tokens.left.device)
    with strategy_call(strategy, "select_in_step", tokens.attention):
        selection = strategy.select_in_step(stage, tokens)
    check_is_selection(strategy, "select_in_step", selection, tokens.n_left, "that are left")
    if len(selection.kept) != allowed:
        raise PruningError(
            f"{type(strategy).__name__}.select_in_step kept {len(selection.kept)} visual tokens from step {stage.step} "
            f"on; its budget is {allowed}. Keep stage.budget(tokens.n_visual) of them."
        )
    return selection
