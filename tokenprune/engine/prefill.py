"""What happens to one prompt, in order.

before_model           images that `generate` encoded in advance bring their records along
before_base_model      which new columns are visual tokens, and what the cache already holds
  (images that come as pixels are encoded here: recording.py)
before_language_model  `_prune`: the strategy selects, position IDs follow, the report is written, arguments shrink
  (the decoder layers run, on fewer tokens)
after_language_model   the cache gets an index of which token is in which slot
after_base_model       the call is over
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import (
    check_no_replica,
    counts_from_end,
    find_cache,
    named_arguments,
    new_size,
    packed_arguments,
)
from tokenprune.encoded import RECORD_ATTRIBUTE, recall_images
from tokenprune.engine.attention import WithheldIds, check_not_packed, entering_bias
from tokenprune.engine.cache.fingerprints import fingerprint_pruned
from tokenprune.engine.cache.index import CacheIndex
from tokenprune.engine.cache.pruned import begin_pruning, index_of, n_slots, pass_view, return_cache, set_index, settle
from tokenprune.engine.cache.refused import check_not_rebuilt, check_unmodified, interrupted_index
from tokenprune.engine.call import Arguments, CallContext, Forward, Incoming, Pruned
from tokenprune.engine.failures import check_placeholders, has_unknown_values, nested, not_pruned, unknown_cache
from tokenprune.engine.labels import FUSED_HEAD, FusedLabels
from tokenprune.engine.patch import Register, check_not_traced, dynamo_disabled
from tokenprune.engine.select import changes_any, choose, merge_dropped, prune_prompt, renumbered, report_images
from tokenprune.errors import PruningError
from tokenprune.report import Report
from tokenprune.sequence.masks import prunable_mask
from tokenprune.sequence.packing import PromptTokens
from tokenprune.sequence.position_ids import PositionIds, id_shift
from tokenprune.strategy import Strategy

if TYPE_CHECKING:
    from tokenprune.engine.stages.pruning import StagePruning
    from tokenprune.engine.stages.skipping import LayerSkipping


class Prefill:
    """The hooks on the model, its base model and its language model.

    stages, skipping: mechanisms inside the language model; None unless the strategy asks for them.
    keeps_ends: whether trailing padding stays, because the output's last columns are counted from its end.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: ModelAdapter,
        strategy: Strategy,
        position_ids: PositionIds,
        context: CallContext,
    ) -> None:
        self.model, self.adapter, self.strategy = model, adapter, strategy
        self.position_ids: PositionIds = position_ids
        self._last_report: Report | None = None
        self.stages: StagePruning | None = None
        self.skipping: LayerSkipping | None = None
        self._context = context
        self._modalities, self._biased, self.keeps_ends = adapter.modalities, strategy.biases_attention, True

    @property
    def report(self) -> Report | None:
        """The report of the last forward with visual tokens, of this thread or, if it had none, of any thread."""
        return self._context.outcome.report or self._last_report

    def register(self, register: Register) -> None:
        core, language_model = self.adapter.core, self.adapter.language_model
        register(self.model.register_forward_pre_hook(self.before_model, with_kwargs=True))
        register(core.register_forward_pre_hook(self.before_base_model, with_kwargs=True))
        register(core.register_forward_hook(self.after_base_model, with_kwargs=True, always_call=True))
        register(language_model.register_forward_pre_hook(self.before_language_model, with_kwargs=True))
        register(language_model.register_forward_hook(self.after_language_model, with_kwargs=True))

    @dynamo_disabled
    def before_model(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        fused = FusedLabels.of(kwargs) if kwargs.get(FUSED_HEAD) else None
        check_no_replica(module)
        kwargs = named_arguments(module, args, kwargs) if args else kwargs
        records = {}
        for modality in self._modalities:
            output = self.adapter.encoded(modality, kwargs)
            if hasattr(output, RECORD_ATTRIBUTE):
                records[modality.name] = getattr(output, RECORD_ATTRIBUTE)
        self._context.arguments = Arguments(records, self.adapter.unprunable(kwargs), kwargs.get("labels"), fused)

    @dynamo_disabled
    def before_base_model(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._context.check_alone()
        self.end_forward()
        self._context.outcome.packing, self._context.begun = None, True
        kwargs = named_arguments(module, args, kwargs) if args else kwargs
        if kwargs.get("input_ids") is None and kwargs.get("inputs_embeds") is None:
            return  # the model raises the error itself
        cache = find_cache(kwargs)
        settle(cache)
        index = index_of(cache)
        if index is not None:
            index.check_layers(self._skipped, () if self.stages is None else self.stages.layers)
        elif any(getattr(layer, "is_initialized", True) for layer in getattr(cache, "layers", ())):
            check_not_rebuilt(cache, kwargs)  # asks once for the cache's length, which may wait for a GPU
        if self.skipping is not None:
            self.skipping.check_cache(cache)
        unseen = self._context.encodings.begin_call()
        visual, starts, encoded = {}, {}, {}
        for modality in self._modalities:
            name, mask = modality.name, self.adapter.visual_mask(modality, kwargs)
            if mask is not None:
                visual[name], starts[name] = mask, self.adapter.image_starts(kwargs, mask)
                encoded[name] = self.adapter.encoded(modality, kwargs)
        if unseen - visual.keys():
            check_placeholders(self.adapter, unseen - visual.keys(), kwargs)
        if index is None and not visual and self.skipping is None:
            return
        check_not_traced()
        images = {}
        for name, output in encoded.items():
            records = self._context.arguments.records.get(name)
            if output is not None and records is not None and not hasattr(output, RECORD_ATTRIBUTE):
                setattr(output, RECORD_ATTRIBUTE, records)  # accelerate's hooks pass on a copy without them
            images[name] = recall_images(output, visual[name])
        slots, mask = n_slots(cache), prunable_mask(kwargs.get("attention_mask"))
        if index is not None:
            check_unmodified(cache, index, slots, kwargs)
        columns = slots if index is None else slots + index.n_dropped
        n_new, given = new_size(kwargs)[1], kwargs.get("position_ids") is not None
        incoming = Incoming(cache, index, visual, starts, slots, columns, n_new, mask, given)
        self._context.forward = Forward(incoming)
        self._context.encodings.collect(images)

    @dynamo_disabled
    def before_language_model(
        self, module: nn.Module, args: Any, kwargs: Any
    ) -> tuple[tuple[()], dict[str, Any]] | None:
        forward = self._context.forward
        if forward is None:
            return None
        if args:
            kwargs = named_arguments(module, args, kwargs)
        if forward.selects:
            raise nested()
        incoming, skipped = forward.incoming, self._skipped
        ids = incoming.position_ids(kwargs)
        if incoming.visual:
            forward.selects = True
            self._prune(forward, kwargs, ids, skipped)
        if forward.pruned is None and incoming.index is None:
            return None
        self.adapter.check_length(incoming.n_columns + incoming.n_new)
        kwargs["attention_mask"] = forward.mask(self.adapter, kwargs)
        if forward.pruned is not None and incoming.cache is not None:
            finish = partial(interrupted_index, forward, self.adapter, skipped)
            begin_pruning(incoming.cache, forward.pruned.index, finish)
        # Incoming masks are over logical columns; the language model's are over physical slots, like its cache.
        forward.view = None if incoming.cache is None else pass_view(kwargs, incoming.cache, self._context.views)
        if forward.pruned is not None and incoming.n_slots and self.adapter.decoder.runs_flash:
            forward.withheld_ids = WithheldIds(self.adapter.layers, lambda: self._context.forward is forward)
        if forward.pruned is None:
            kwargs["position_ids"] = ids
            if self.stages is not None:
                forward.stages = self.stages.resume(incoming, kwargs["inputs_embeds"])
        return (), kwargs

    def _prune(self, forward: Forward, kwargs: dict[str, Any], ids: Tensor, skipped: tuple[int, ...]) -> None:
        """Select visual tokens, report them, and shorten all arguments but the mask if anything is dropped."""
        incoming, embeds = forward.incoming, kwargs["inputs_embeds"]
        (batch, n_new, _), device = embeds.shape, embeds.device
        real = incoming.real(batch, device)
        ends = self.keeps_ends and (self._context.arguments.labels is None or counts_from_end(self.model))
        # The masks were made from token IDs, which may be on another device than their embeddings.
        visual = {name: mask.to(device) for name, mask in incoming.visual.items()}
        prompt = PromptTokens.of(visual, incoming.image_starts, real, ends)

        # The strategy selects, image by image.
        features = self.adapter.visual_features(kwargs) if self.adapter.late_features else embeds
        chosen = choose(self.strategy, features, prompt, self._context.encodings.images)
        dropped = torch.stack(list(visual.values())).any(0)
        for image in chosen:
            dropped[image.row, image.columns[image.selection.kept]] = False

        # Remaining tokens keep their position IDs, or are renumbered without gaps.
        before = ids.expand(*ids.shape[:-2], batch, n_new)
        if self.position_ids == "compact":
            ids = renumbered(before, dropped, real, chosen, self.adapter.continues_above_time)
        else:
            ids = before
        changes = changes_any(chosen) or (self.stages is not None and self.stages.may_drop(chosen))
        forward.report = Report(report_images(chosen, ids), skipped, self.adapter.decoder.layers.contract)
        if chosen:
            self.publish(forward.report)

        if not changes:
            return
        if incoming.cache is None and incoming.columns_mask is None and not self.adapter.decoder.runs_flash:
            check_not_packed(before)
        # If the base model was called directly, the model's hook has not seen the arguments.
        unprunable = self._context.arguments.unprunable
        if unprunable := packed_arguments(kwargs) if unprunable is None else unprunable:
            raise PruningError(
                f"{' and '.join(unprunable)} count the tokens of the unpruned sequence, and pruning "
                f"shortens it. Leave them out, and read handle.report for which visual tokens are left."
            )
        # Everything that runs along the sequence is shortened alike.
        embeds = merge_dropped(embeds, chosen)
        if self.adapter.late_features:
            self.adapter.merge_late(kwargs, partial(merge_dropped, chosen=chosen))
        packing = prune_prompt(prompt, dropped, chosen)
        bias = entering_bias(chosen, packing) if self._biased else None
        shift = None if self.position_ids == "original" else id_shift(before, ids, real)
        index = CacheIndex.after(incoming.index, incoming.n_slots, packing, shift, skipped, bias)
        if self.stages is not None:
            past_valid = incoming.past_valid(batch, device)
            forward.stages = self.stages.begin(incoming, past_valid, packing, chosen, prompt)
        kwargs["inputs_embeds"] = packing.gather_tokens(embeds)
        kwargs["position_ids"] = packing.gather_ids(ids)
        self.adapter.prune_arguments(kwargs, packing, incoming.n_slots)
        forward.pruned = Pruned(packing, bias, index)

    @dynamo_disabled
    def after_language_model(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        forward = self._context.forward
        if forward is None:
            return None
        incoming, pruned, index = forward.incoming, forward.pruned, forward.index_after()
        if forward.view is not None:
            output = return_cache(output, forward.view, incoming.cache)
        if pruned is None and self.skipping is None:
            return output
        if pruned is not None:
            stages = forward.stages
            self._context.outcome.packing = pruned.packing if stages is None else stages.leaving(pruned.packing)
            if stages is not None and forward.report is not None:
                forward.report = replace(forward.report, images=stages.reported(forward.report.images))
                self.publish(forward.report)
        if args:
            kwargs = named_arguments(module, args, kwargs)
        if pruned is not None and kwargs.get("logits_to_keep"):
            # A model that tells its language model how many logits it wants expects just that many (Gemma 4).
            output["last_hidden_state"] = output["last_hidden_state"][:, -kwargs["logits_to_keep"] :]
        cache = incoming.cache if incoming.cache is not None else find_cache(kwargs, output)
        if cache is None:
            if kwargs.get("use_cache") and pruned is not None and has_unknown_values(output):
                raise unknown_cache(self.model)
            return output
        if index is not None:
            set_index(cache, index)
            fingerprint_pruned(cache, index, incoming.padding)
        elif incoming.index is None:
            embeds, skipped = kwargs["inputs_embeds"], self._skipped
            set_index(cache, CacheIndex.unpruned(len(embeds), n_slots(cache), embeds.device, skipped))
        return output

    @dynamo_disabled
    def after_base_model(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call, forward = self._context, self.end_forward()
        encoded, fused, begun = call.encodings.modalities, call.arguments.fused, call.begun
        call.drop()
        if fused is not None and output is not None:
            fused.spread(output, self._context.outcome.packing)
        has_images = bool(encoded) or (forward is not None and bool(forward.incoming.visual))
        # Without an output, an exception is already propagating, which says more than this one would.
        if output is not None and has_images and (forward is None or forward.report is None):
            raise not_pruned(self.adapter, begun)

    def publish(self, report: Report) -> None:
        """Store the report of this thread's last forward with visual tokens."""
        self._context.outcome.report = self._last_report = report

    def end_forward(self) -> Forward | None:
        """End the forward of this thread, or one that an exception has left behind."""
        forward, self._context.forward = self._context.forward, None
        if forward is not None and forward.stages is not None and self.stages is not None:
            self.stages.end(forward.stages)
        if forward is not None and forward.withheld_ids is not None:
            forward.withheld_ids.remove()
        return forward

    @property
    def _skipped(self) -> tuple[int, ...]:
        return () if self.skipping is None else self.skipping.layers
