"""Registers every hook, and drives one pruned forward through them.

vision tower     records declared statistics, drops patches   (may run before the model, inside `generate`)
feature function records every picture's layout beside them   (the base model's method that encodes pictures)
base model       sees whether pictures came; tells a pruned cache that its forward begins and ends
language model   selects and shortens on entry; writes the cache's ledger on exit
loss function    gets labels as short as the logits
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tokenprune.adapters.base import ModelAdapter
from tokenprune.engine.cache import enter, leave, ledger_of, n_slots
from tokenprune.engine.call import guard_hooks, named_arguments, uncompiled
from tokenprune.engine.callbacks import after_tap, after_text_tap, before_attention, before_encoder_layer
from tokenprune.engine.forward_pass import ForwardPass
from tokenprune.engine.overrides import FeatureFunction, InnerFeatures, LossFunction, StandIn
from tokenprune.engine.progress import Progress
from tokenprune.engine.recording import VisionRecorder
from tokenprune.engine.select import choose, shortened, with_merged
from tokenprune.engine.skipping import check_cache
from tokenprune.engine.stages.layers import SkippedLayer, StagedLayer
from tokenprune.engine.stages.plan import StageHooks
from tokenprune.engine.tower import TowerPruning
from tokenprune.errors import PruningError
from tokenprune.report import Report
from tokenprune.sequence.packing import Packing, PositionIds, default_ids, id_shift, renumber
from tokenprune.sequence.prompt import PromptTokens
from tokenprune.strategy import Strategy
from tokenprune.tokens.encoded import RECORD_ATTRIBUTE, CapturePoints, Modality

#: The vision tower's attention, that of decoder layers by their number, and what is heard where the tower is pruned.
Taps = tuple[list[CapturePoints], dict[int, CapturePoints], list[tuple[str, nn.Module]]]


class Pruner:
    """The hooks of one patched model. `install` registers all of them or none; `remove` leaves nothing behind."""

    def __init__(self, model: nn.Module, adapter: ModelAdapter, strategy: Strategy, position_ids: PositionIds) -> None:
        self.model, self.adapter, self.strategy = model, adapter, strategy
        self.position_ids: PositionIds = position_ids
        self.report: Report | None = None
        self._hooks: list[RemovableHandle | StandIn] = []  # no ExitStack: a copy of one undoes the original
        self._now = Progress()
        self._modalities = adapter.modalities
        self._tower = TowerPruning(strategy, adapter)
        self._recorder = VisionRecorder(adapter, strategy.needs, self._tower)
        self._stages = StageHooks(strategy, adapter)  # and skipped layers
        self._taps: Taps = ([], {}, [])

    def install(self) -> None:
        core, language_model = self.adapter.core, self.adapter.language_model
        recorder = self._recorder
        with ExitStack() as hooks:  # if one registration raises, those before it are undone

            def undo(handle: RemovableHandle | StandIn) -> None:
                hooks.callback(handle.remove)
                self._hooks.append(handle)

            self._hooks.clear()
            undo(self.model.register_forward_pre_hook(self._before_model, with_kwargs=True))
            undo(core.register_forward_pre_hook(self._before_core, with_kwargs=True))
            undo(core.register_forward_hook(self._after_core, with_kwargs=True, always_call=True))
            undo(language_model.register_forward_pre_hook(self._before_language_model, with_kwargs=True))
            undo(language_model.register_forward_hook(self._after_language_model, with_kwargs=True))
            for tower in self.adapter.vision_towers:
                undo(tower.register_forward_pre_hook(recorder.before_tower, with_kwargs=True))
                undo(tower.register_forward_hook(recorder.after_tower))
                if self._tower.layers:
                    undo(tower.register_forward_pre_hook(self._tower.before_tower, with_kwargs=True))
                    undo(tower.register_forward_hook(self._tower.after_tower))
            self._taps = in_tower, in_layers, heard = self._current_taps()
            for name, module in heard:
                undo(module.register_forward_hook(partial(after_tap, self._tower, name)))
            for number, layer in self._tower.layers.items():
                before = partial(before_encoder_layer, self._tower, number)
                undo(layer.register_forward_pre_hook(before, with_kwargs=True))
            for taps in in_tower:
                undo(taps.attention.register_forward_pre_hook(recorder.before_attention, with_kwargs=True))
                recorder.taps = set(taps.outputs)
                for name, module in taps.outputs.items():
                    undo(module.register_forward_hook(partial(after_tap, recorder, name)))
            if self._stages.stages and (name := self.adapter.inner_features) is not None:
                undo(InnerFeatures(language_model, name, self._stages.inner).install())
            for number in self._stages.skipped:
                undo(SkippedLayer(self.adapter.layers[number]).install())
            for number in self._stages.layers:  # covers those that are skipped too: what they hand on is cut
                undo(StagedLayer(self.adapter.layers[number], self._stages, number).install())
            for number, taps in in_layers.items():
                before = partial(before_attention, self._stages.recorder, number)
                undo(taps.attention.register_forward_pre_hook(before, with_kwargs=True))
                for name, module in taps.outputs.items():
                    undo(module.register_forward_hook(partial(after_text_tap, self._stages.recorder, number, name)))
            for modality in self._modalities:
                undo(FeatureFunction(core, modality, self).install())
            undo(LossFunction(self.model, *self.adapter.loss_function, self.packing).install())
            hooks.pop_all()
        guard_hooks()

    def remove(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    @uncompiled
    def packing(self) -> Packing | None:
        """Which of the columns the last logits of this thread are of; None if of all."""
        return self._now.packing

    # Pictures are encoded, before the model is called or within.

    @uncompiled
    def begin_encoding(self) -> bool:
        if self._now.encodes:
            return False
        if self._taps != self._current_taps():
            raise PruningError(
                "modules whose attention the strategy needs were replaced after patch(). Call patch() again, behind "
                "get_peft_model, merge_and_unload and the like."
            )
        self._recorder.begin()
        self._now.encodes = True
        return True

    @uncompiled
    def end_encoding(self) -> None:
        self._now.encodes = False

    @uncompiled
    def encoded(self, modality: Modality, arguments: dict[str, Any], output: Any) -> None:
        images = self._recorder.images(modality, arguments, output)
        self.adapter.remember(output, images)
        forward = self._now.forward
        if forward is not None and modality.name in forward.images:
            forward.images[modality.name] += images

    def _current_taps(self) -> Taps:
        in_tower = "vision_attention" in self.strategy.needs
        tower_taps = list(self.adapter.all_capture_points(self.strategy.attention_layer)) if in_tower else []
        return (
            tower_taps,
            {layer: self.adapter.text_capture_points(layer) for layer in self._stages.read},
            self._tower.taps,
        )

    # The model and its base model: what came in, and which length the cache answers.

    @uncompiled
    def _before_model(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        kwargs = named_arguments(module, args, kwargs)
        self._now.unprunable = self.adapter.unprunable(kwargs)
        encoded = {m.name: self.adapter.encoded(m, kwargs) for m in self._modalities}
        self._now.records = {
            name: getattr(output, RECORD_ATTRIBUTE)
            for name, output in encoded.items()
            if hasattr(output, RECORD_ATTRIBUTE)
        }

    @uncompiled
    def _before_core(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._end_pass()
        self._now.packing = None
        kwargs = named_arguments(module, args, kwargs)
        cache = self.adapter.cache(kwargs)
        ledger = ledger_of(cache)
        masks = {m: self.adapter.visual_mask(m, kwargs) for m in self._modalities}
        visual = {m.name: mask for m, mask in masks.items() if mask is not None}
        check_cache(cache, ledger, self._stages.skipped)
        if ledger is None and not visual and not self._stages.skipped:
            return
        for modality in self._modalities:
            output = self.adapter.encoded(modality, kwargs)
            if output is not None and not hasattr(output, RECORD_ATTRIBUTE) and modality.name in self._now.records:
                self.adapter.remember(output, self._now.records[modality.name])  # accelerate's hooks made a new one
        slots = n_slots(cache)
        columns = slots if ledger is None else slots + ledger.n_dropped
        images = {m.name: self.adapter.recall(m, kwargs, visual[m.name]) for m in masks if m.name in visual}
        begins = {name: self.adapter.image_starts(kwargs, mask) for name, mask in visual.items()}
        n_new, mask = self.adapter.n_new(kwargs), self.adapter.attention_mask(kwargs)
        self._now.forward = ForwardPass(cache, ledger, visual, begins, images, slots, columns, n_new, mask)

    @uncompiled
    def _after_core(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        forward = self._end_pass()
        self._now.unprunable, self._now.records = [], {}
        # Without an output an exception is on its way, which says more than this one would.
        if output is not None and forward is not None and forward.visual and not forward.pruned:
            raise PruningError(
                f"{type(self.model).__name__} got pictures, but its language model was called in a way that "
                f"{type(self.adapter).__name__} does not know, so nothing was pruned. Remove the patch, and report "
                f"it with your transformers version."
            )

    def _end_pass(self) -> ForwardPass | None:
        forward, self._now.forward = self._now.forward, None
        if forward is not None:
            self._stages.end()
            leave(forward.cache)
        return forward

    # The language model: select, shorten, account.

    @uncompiled
    def _before_language_model(
        self, module: nn.Module, args: Any, kwargs: Any
    ) -> tuple[tuple[()], dict[str, Any]] | None:
        forward = self._now.forward
        if forward is None:
            return None
        kwargs = named_arguments(module, args, kwargs)
        embeds = kwargs["inputs_embeds"]
        n_new = embeds.shape[1]
        ids = kwargs.get("position_ids")
        if ids is None:
            ids = default_ids(forward.n_columns, n_new, embeds.device)
        if forward.ledger is not None:
            # Given a mask over the cache, Qwen-VL numbers the cache's columns as well.
            ids = ids[..., -n_new:] if ids.shape[-1] > n_new else ids
            ids = ids if forward.ledger.shift is None else ids - forward.ledger.shift[:, None]
        if forward.visual:
            self._shorten(forward, kwargs, ids)
        if forward.packing is None and forward.ledger is None:
            return None
        # From here on the cache answers its physical length; the masks that came were made for its logical one.
        enter(forward.cache)
        kwargs["attention_mask"] = forward.mask(self.adapter, kwargs)
        if forward.packing is None:
            kwargs["position_ids"] = ids
            self._stages.resume(forward.cache, forward.ledger, forward.n_slots, embeds)
        return (), kwargs

    def _shorten(self, forward: ForwardPass, kwargs: dict[str, Any], ids: Tensor) -> None:
        """Selects, reports, and shortens all arguments but the mask, if anything is dropped."""
        embeds, chosen = kwargs["inputs_embeds"], []
        batch, n_new, _ = embeds.shape
        real = forward.real(batch, next(iter(forward.visual.values())).device)
        new = PromptTokens.of(forward.visual, forward.begins, real)
        for modality in forward.visual:
            chosen += choose(self.strategy, embeds, new, modality, forward.images[modality])
        chosen.sort(key=lambda image: (image.row, image.first))
        forward.pruned = True
        dropped = torch.stack(list(forward.visual.values())).any(0)
        for image in chosen:
            dropped[image.row, image.columns[image.selection.kept]] = False
        drops = any(len(image.selection.kept) < image.selection.n_visual for image in chosen)
        before = ids.expand(*ids.shape[:-2], batch, n_new)
        ids = renumber(before, dropped, real, self.position_ids)
        self.report = Report([image.report(ids) for image in chosen], self._stages.skipped)
        if not drops and not self._stages.prune(chosen):
            return
        if self._now.unprunable:
            raise PruningError(
                f"{' and '.join(self._now.unprunable)} count the tokens of the unpruned sequence, and pruning shortens "
                f"it. Call the model without, and read handle.report for which visual tokens are left."
            )
        packing, past_valid = shortened(new, dropped, chosen), forward.past_valid(batch, embeds.device)
        self._stages.begin(forward.cache, forward.ledger, past_valid, packing, chosen, new)
        merges = [(image.row, image.columns, image.selection) for image in chosen]
        kwargs["inputs_embeds"] = packing.gather_tokens(with_merged(embeds, merges))
        kwargs["position_ids"] = packing.gather_ids(ids)
        self.adapter.prune_arguments(kwargs, packing, forward.n_slots)
        forward.packing = packing
        forward.shift = None if self.position_ids == "original" else id_shift(before, ids, real)

    @uncompiled
    def _after_language_model(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        forward = self._now.forward
        if forward is None:
            return
        if forward.packing is not None:
            self._now.packing = self._stages.leaving(forward.packing)
            if self.report is not None and self._stages.stages:
                self.report = replace(self.report, images=self._stages.reported(self.report.images))
        if forward.packing is None and not self._stages.skipped:
            return
        kwargs = named_arguments(module, args, kwargs)
        cache = self.adapter.cache(kwargs, output)
        if cache is not None:
            forward.account(cache, kwargs["inputs_embeds"], self._stages.held(), self._stages.skipped)


def pruner_of(model: nn.Module) -> Pruner | None:
    """The Pruner whose hooks are on `model`."""
    owners = (getattr(hook, "__self__", None) for hook in model._forward_pre_hooks.values())
    return next((owner for owner in owners if isinstance(owner, Pruner)), None)
