"""Registers every hook, and drives one pruned forward through them.

vision tower     records grids and declared statistics        (may run before the model, inside `generate`)
base model       sees whether pictures came; tells a pruned cache that its forward begins and ends
language model   selects and shortens on entry; writes the cache's ledger on exit
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tokenprune.adapters.base import ModelAdapter
from tokenprune.errors import PruningError
from tokenprune.ledger import Ledger, enter, leave, ledger_of, n_slots, set_ledger
from tokenprune.recorder import VisionRecorder, named_arguments
from tokenprune.report import ImageReport, Report
from tokenprune.sequence import (
    Packing,
    PositionIds,
    default_ids,
    id_shift,
    padding_mask,
    renumbered,
    shortened,
)
from tokenprune.strategy import Selection, Strategy
from tokenprune.tokens import VisualTokens
from tokenprune.vision import EncodedImage


@dataclass
class ForwardPass:
    """The state of one call of the base model that has pictures or a pruned cache.

    visual: which of the new columns are visual tokens; None without pictures.
    n_slots, n_columns: physical and logical length of the cache at the start.
    packing, dropped: which of the new columns are left and which are not; set when any is dropped.
    """

    cache: Any
    ledger: Ledger | None
    visual: Tensor | None
    n_slots: int
    n_columns: int
    pruned: bool = False
    packing: Packing | None = None
    dropped: Tensor | None = None


class Pruner:
    """The hooks of one patched model. `install` registers all of them or none; `remove` leaves nothing behind."""

    def __init__(self, model: nn.Module, adapter: ModelAdapter, strategy: Strategy, position_ids: PositionIds) -> None:
        self.model, self.adapter, self.strategy = model, adapter, strategy
        self.position_ids: PositionIds = position_ids
        self.report: Report | None = None
        self._hooks = ExitStack()
        self._pass: ForwardPass | None = None
        self._unprunable: list[str] = []
        self._recorder = VisionRecorder(adapter, strategy.needs)

    def install(self) -> None:
        core, language_model, tower = self.adapter.core, self.adapter.language_model, self.adapter.vision_tower
        with ExitStack() as hooks:  # if one registration raises, those before it are undone

            def undo(handle: RemovableHandle) -> None:
                hooks.callback(handle.remove)

            undo(self.model.register_forward_pre_hook(self._before_model, with_kwargs=True))
            undo(core.register_forward_pre_hook(self._before_core, with_kwargs=True))
            undo(core.register_forward_hook(self._after_core, with_kwargs=True, always_call=True))
            undo(language_model.register_forward_pre_hook(self._before_language_model, with_kwargs=True))
            undo(language_model.register_forward_hook(self._after_language_model, with_kwargs=True))
            undo(tower.register_forward_pre_hook(self._recorder.before_tower, with_kwargs=True))
            undo(tower.register_forward_hook(self._recorder.after_tower))
            if "vision_attention" in self.strategy.needs:
                queries, keys = self.adapter.attention_projections(self.strategy.attention_layer)
                undo(queries.register_forward_hook(self._recorder.after_queries))
                undo(keys.register_forward_hook(self._recorder.after_keys))
            self._hooks = hooks.pop_all()

    def remove(self) -> None:
        self._hooks.close()

    # The model and its base model: what came in, and which length the cache answers.

    def _before_model(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._unprunable = self.adapter.unprunable(named_arguments(module, args, kwargs))

    def _before_core(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[tuple[()], dict[str, Any]] | None:
        self._end_pass()
        kwargs = named_arguments(module, args, kwargs)
        cache = self.adapter.cache(kwargs)
        ledger, visual = ledger_of(cache), self.adapter.visual_mask(kwargs)
        if ledger is None and visual is None:
            return None
        slots = n_slots(cache)
        columns = slots if ledger is None else slots + ledger.n_dropped
        self._pass = ForwardPass(cache, ledger, visual, slots, columns)
        if visual is not None:
            self._recorder.images = self.adapter.recall(kwargs)
        if ledger is None:
            return None
        n_new = self.adapter.n_new(kwargs)
        mask = self.adapter.attention_mask(kwargs)
        real = None if mask is None else padding_mask(mask, columns, n_new)
        ids = kwargs.get("position_ids")
        if ids is None:
            ids = default_ids(columns, n_new, ledger.columns.device)
        kwargs["attention_mask"] = ledger.slot_mask(real, slots, n_new)
        kwargs["position_ids"] = ids - ledger.shift[:, None]
        enter(cache)
        return (), kwargs

    def _after_core(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        forward = self._end_pass()
        self._unprunable = []
        # Without an output an exception is on its way, which says more than this one would.
        if output is not None and forward is not None and forward.visual is not None and not forward.pruned:
            raise PruningError(
                f"{type(self.model).__name__} got pictures, but its language model was called in a way that "
                f"{type(self.adapter).__name__} does not know, so nothing was pruned. Remove the patch, and report "
                f"it with your transformers version."
            )

    def _end_pass(self) -> ForwardPass | None:
        forward, self._pass = self._pass, None
        if forward is not None:
            leave(forward.cache)
        return forward

    # The language model: select, shorten, account.

    def _before_language_model(
        self, module: nn.Module, args: Any, kwargs: Any
    ) -> tuple[tuple[()], dict[str, Any]] | None:
        forward = self._pass
        if forward is None or forward.visual is None:
            return None
        kwargs = named_arguments(module, args, kwargs)
        embeds = kwargs["inputs_embeds"]
        ids = kwargs.get("position_ids")
        if ids is None:
            ids = default_ids(forward.n_columns, embeds.shape[1], embeds.device)

        chosen = self._select(embeds, forward.visual, self._recorder.images)
        forward.pruned = True
        dropped = forward.visual.clone()
        for image in chosen:
            dropped[image.row, image.columns[image.selection.kept]] = False
        ids = renumbered(ids, dropped, self.position_ids)
        self.report = Report([image.report(ids) for image in chosen])
        if not bool(dropped.any()):
            return None
        if self._unprunable:
            raise PruningError(
                f"{' and '.join(self._unprunable)} count the tokens of the unpruned sequence, and pruning shortens it. "
                f"Call the model without, and read handle.report for which visual tokens are left."
            )

        packing, mask = shortened(dropped, self.adapter.attention_mask(kwargs), forward.n_slots)
        kwargs["inputs_embeds"] = packing.take(embeds)
        kwargs["position_ids"] = packing.take_ids(ids)
        # Without cache and mask, gaps in the position IDs would be read as borders of packed sequences.
        kwargs["attention_mask"] = None if forward.cache is not None and bool(mask.all()) else mask
        self.adapter.shorten(kwargs, packing, forward.n_slots)
        forward.packing, forward.dropped = packing, dropped
        return (), kwargs

    def _after_language_model(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        forward = self._pass
        if forward is None or forward.packing is None or forward.dropped is None:
            return
        cache = self.adapter.cache(kwargs)
        if cache is None:
            cache = self.adapter.cache(output)
        if cache is not None:
            shift = id_shift(forward.dropped, self.position_ids)
            set_ledger(cache, Ledger.written(forward.ledger, forward.n_slots, forward.packing, shift))

    def _select(self, embeds: Tensor, visual: Tensor, images: list[EncodedImage]) -> list[Chosen]:
        rows, columns = visual.nonzero(as_tuple=True)
        counts = [image.n_visual for image in images]
        if sum(counts) != len(rows):
            raise PruningError(
                f"the prompt has {len(rows)} placeholder tokens, and the pictures' grids have {sum(counts)} visual "
                f"tokens. Prepare text and pictures together, with the model's own processor."
            )
        chosen: list[Chosen] = []
        selections: dict[int, Selection] = {}  # beams repeat a picture: it is looked at once
        for image, row, column in zip(images, rows.split(counts), columns.split(counts), strict=True):
            if bool((row != row[0]).any()):
                raise PruningError(
                    "the placeholder tokens of one picture are spread over two samples of the batch. Prepare text and "
                    "pictures together, with the model's own processor."
                )
            if id(image) not in selections:
                tokens = VisualTokens(embeds[row, column], image.grid, len(selections), image.statistics)
                selections[id(image)] = checked_selection(self.strategy, tokens)
            chosen.append(Chosen(int(row[0]), column, image, selections[id(image)]))
        return chosen


@dataclass(frozen=True, eq=False)
class Chosen:
    """One picture in one row: the columns of its visual tokens, and which of them are kept."""

    row: int
    columns: Tensor
    image: EncodedImage
    selection: Selection

    def report(self, ids: Tensor) -> ImageReport:
        columns = self.columns[self.selection.kept]
        return ImageReport(
            self.row, self.image.grid, self.selection.kept, self.selection.scores, ids[..., self.row, columns]
        )


def checked_selection(strategy: Strategy, tokens: VisualTokens) -> Selection:
    """What the strategy selects, if it keeps to its budget and counts the right tokens."""
    selection = strategy.select(tokens)
    name = type(strategy).__name__
    if not isinstance(selection, Selection) or selection.n_visual != tokens.n_visual:
        raise PruningError(f"{name}.select must return a Selection over {tokens.n_visual} visual tokens.")
    allowed = strategy.budget(tokens.n_visual)
    if len(selection.kept) > allowed:
        raise PruningError(
            f"{name}.select kept {len(selection.kept)} visual tokens; its budget is {allowed} of {tokens.n_visual}. "
            f"Ask self.budget(tokens.n_visual) how many to keep."
        )
    return selection


def pruner_of(model: nn.Module) -> Pruner | None:
    """The Pruner whose hooks are on `model`."""
    owners = (getattr(hook, "__self__", None) for hook in model._forward_pre_hooks.values())
    return next((owner for owner in owners if isinstance(owner, Pruner)), None)
