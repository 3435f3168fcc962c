"""In the API server: before encoding, an image (or each part of an image or video that is pruned separately) gets one
placeholder token for each token that will be kept."""

# pyright: reportMissingImports=false

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor
from vllm.multimodal.processing import BaseMultiModalProcessor
from vllm.multimodal.processing.processor import ResolvedPromptUpdate

from tokenprune.engine.tower.patches import selected_patches
from tokenprune.errors import PruningError, SettingError, UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.metrics import count_image
from tokenprune.serving.vllm.processor.elsewhere import encoded_elsewhere
from tokenprune.serving.vllm.processor.item import FIELD, PrunedItem
from tokenprune.serving.vllm.processor.markers import markers_between
from tokenprune.serving.vllm.processor.options import check_patch_options, check_tiles
from tokenprune.serving.vllm.processor.placeholder import PrunedPlaceholder, fitting_ratio
from tokenprune.serving.vllm.relied_on import PROCESSOR, Reached, check_overridden
from tokenprune.serving.vllm.settings import (
    KEEP_IN_PROMPT,
    KEEP_RATIO,
    VIDEO_KEEP_RATIO,
    Budget,
    Settings,
    split_request,
)
from tokenprune.serving.vllm.startup.refusals import needs_image
from tokenprune.strategy import PatchStrategy, ResizeStrategy
from tokenprune.tokens import PatchTokens

#: Of the unpruned input that measures memory. The float's identity tells it from requests: some models copy the dict.
PROFILING_OPTIONS: Mapping[str, object] = {KEEP_RATIO: 1.0}


if TYPE_CHECKING:
    Base = BaseMultiModalProcessor[Any]
else:
    Base = object


class PruningProcessor(Base):
    """Mixed in before a vLLM processor class.

    pruned: the modalities that are pruned, as the model class has them.
    has_markers: whether there may be text between the visual tokens of an image; a model that has it prunes no videos,
        and its position IDs have one component.
    square: whether the vision tower takes tiles of one size only, the `image_size` of its config.
    """

    pruned: ClassVar[Collection[str]] = ("image",)
    has_markers: ClassVar[bool] = False
    square: ClassVar[bool] = False

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        """How many of an item's visual tokens each separately pruned part has."""
        return (n_visual,)

    def visual(self, ids: Sequence[int], embedded: Tensor) -> Tensor:
        """Which tokens of a placeholder are visual, among those for which vLLM takes rows from the encoder."""
        return embedded

    def patches(self, modality: str, item: Any) -> Sequence[PatchTokens]:
        """What a strategy that prunes before the vision tower sees of each part of an item."""
        raise NotImplementedError(f"{type(self).__name__} does not define patches.")

    def shrink(self, modality: str, item: Any, budget: int) -> tuple[int, ...]:
        """Replace the pixels of an item with those of its largest smaller version of at most `budget` visual tokens, if
        it has more. Returns the `shrunk` of its `PrunedItem`. Raises PruningError for one that cannot be shrunk so
        far."""
        raise NotImplementedError(f"{type(self).__name__} does not define shrink.")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        check_overridden(cls, PROCESSOR)

    @cached_property
    def reached(self) -> Reached:
        return Reached(PROCESSOR)

    @cached_property
    def settings(self) -> Settings:
        return Settings.of(self.info.ctx.model_config.hf_config)

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
        inputs = super().get_dummy_inputs(*args, **kwargs)
        inputs.hf_processor_mm_kwargs = PROFILING_OPTIONS
        return inputs

    def _get_mm_hashes(self, inputs: Any) -> Any:
        """vLLM's hashes, which cover the request's keep ratio, plus the engine's settings: caches may be shared. For an
        item in a shared encoder cache, a request sends its name there, which has both, as `uuid`."""
        self.reached.note("_get_mm_hashes")
        end, hashes = f"-{self.settings.digest}", super()._get_mm_hashes(inputs)
        for modality, ones in hashes.items():
            names = [None] * len(ones)
            if encoded_elsewhere(inputs.mm_data_items[modality], modality) == "not sent":
                names = (inputs.mm_uuid_items or {}).get(modality, names)
            hashes[modality] = [
                name if name is not None and name.endswith(end) else start + end
                for start, name in zip(ones, names, strict=True)
            ]
        return hashes

    def _cached_apply_hf_processor(self, inputs: Any, timing_ctx: Any) -> Any:
        """Process the images of one prompt. Raises SettingError for a budget that is invalid or mistyped, or so low
        that the unpruned prompt has more position IDs than the engine provides, and for other options that do not fit
        the model's vision tower."""
        self.reached.note("_cached_apply_hf_processor")
        given = inputs.hf_processor_mm_kwargs
        self.settings.check_options(given, request=True)
        if "video" not in self.pruned and given.get(VIDEO_KEEP_RATIO) is not None:
            raise SettingError(
                f"mm_processor_kwargs: {VIDEO_KEEP_RATIO} does nothing: this model's videos are not pruned, or not "
                f"apart from images. Leave it out."
            )
        others = split_request(given)[1]
        for modality in self.pruned:
            self.settings.strategy_at(split_request(given, modality)[0])  # may raise
        most = self.settings.most_in_prompt(given)
        if others:
            check_patch_options(others, self.info.get_hf_processor())
        self._check_encoded(inputs.mm_data_items)
        inputs = replace(inputs, hf_processor_mm_kwargs={k: v for k, v in given.items() if k != KEEP_IN_PROMPT})
        result = super()._cached_apply_hf_processor(inputs, timing_ctx)
        images = self._placeholders(result)
        profiling = given.get(KEEP_RATIO) is PROFILING_OPTIONS[KEEP_RATIO]
        try:
            if most is not None and not profiling and sum(image.n_kept for image in images) > most:
                ratio = fitting_ratio(self.settings, images, most)
                self._forget(inputs, result)
                inputs = replace(inputs, hf_processor_mm_kwargs={**others, KEEP_RATIO: ratio})
                result = super()._cached_apply_hf_processor(inputs, timing_ctx)
                images = self._placeholders(result)
            self._check_length(sum(image.n_visual - image.n_kept for image in images))
        except SettingError:
            self._forget(inputs, result)
            raise
        if not profiling:
            for image in images:
                count_image(image.n_visual, image.n_kept)
        return result

    def _placeholders(self, result: Any) -> list[PrunedPlaceholder]:
        updates = (update for modality in self.pruned for update, *_ in result.prompt_updates.get(modality, ()))
        found = [update.content for update in updates]
        if not all(isinstance(one, PrunedPlaceholder) for one in found):
            raise self.reached.missed("_get_mm_prompt_updates")
        return found

    def _forget(self, inputs: Any, result: Any) -> None:
        """Let processed images not count as sent to the engine, which will not get them."""
        if inputs.cache is not None:
            for modality in self.pruned:
                for name in result.hashes.get(modality, ()):
                    inputs.cache.invalidate(name)

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        self.reached.note("_apply_hf_processor_main")
        return super()._apply_hf_processor_main(mm_items, split_request(hf_kwargs)[1])

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        self.reached.note("_get_mm_fields_config")
        return super()._get_mm_fields_config(hf_inputs, split_request(hf_processor_mm_kwargs)[1])

    def _get_mm_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> dict[str, Sequence[Sequence[ResolvedPromptUpdate]]]:
        """vLLM's updates with shorter images and frames; every pruned item gets its `PrunedItem`."""
        if out_mm_kwargs:
            before = "_cached_apply_hf_processor", "_get_mm_hashes", "_apply_hf_processor_main", "_get_mm_fields_config"
            self.reached.require(*before)
        others = split_request(hf_processor_mm_kwargs)[1]
        updates = dict(super()._get_mm_prompt_updates(mm_items, others, out_mm_kwargs))
        for modality in self.pruned:
            asked = split_request(hf_processor_mm_kwargs, modality)[0]
            if updates.get(modality):  # not all of the prompt's items are cached
                for item in out_mm_kwargs[modality] if self.square and others else ():
                    check_tiles(item, self.info.get_hf_config().vision_config.image_size, others)
                updates[modality] = [
                    [self._shortened(update, asked, item, modality) for update in of_item]
                    for of_item, item in zip(updates[modality], out_mm_kwargs[modality], strict=True)
                ]
        return updates

    def _shortened(
        self, update: ResolvedPromptUpdate, asked: Budget | None, item: Any, modality: str
    ) -> ResolvedPromptUpdate:
        """An item's update with one placeholder token for each token kept of each part, and one for each of its
        markers."""
        ids, is_embed = [*update.content.full], update.content.is_embed
        embedded = torch.ones(len(ids), dtype=torch.bool) if is_embed is None else is_embed(ids)
        visual = self.visual(ids, embedded)
        places = visual.nonzero()[:, 0]
        parts, n_frames, has_markers = tuple(self.parts(modality, item, len(places))), 0, self.has_markers
        together = self.settings.joins_frames and modality == "video" and len(parts) > 1
        if together and self.settings.budget(len(places), asked) < len(places):
            parts, n_frames, has_markers = (len(places),), len(parts), True
            embedded = torch.ones_like(embedded)  # the text before and after the frames, too
        whole = n_frames == 0 and self.settings.needs_video
        asked = Budget(1.0) if whole else asked
        markers = markers_between(ids, visual, embedded) if has_markers else ()
        pieces = [piece.tolist() for piece in places.split(parts)]
        if not has_markers and any(piece[-1] - piece[0] + 1 != len(piece) for piece in pieces):
            raise UnsupportedError(
                "this model has text between the visual tokens of an image, which is not known of its family. Serve it "
                "without pruning."
            )
        first, visual_id = int(embedded.nonzero()[0]), ids[pieces[0][0]]
        for place, _ in markers:
            ids[first + place] = visual_id
        left, shrunk = self._left(modality, item, asked), self._shrunk(modality, item, asked, len(places))
        pruned = PrunedItem(parts, asked, secrets.randbits(53), markers, left, shrunk, n_frames, visual_id)
        item[FIELD] = pruned.element()
        kept = pruned.n_kept(self.settings)
        dropped = {place for piece, n in zip(pieces, kept, strict=True) for place in piece[n:]}
        shorter = [token for place, token in enumerate(ids) if place not in dropped]
        n_kept = len(places) - len(dropped)
        return replace(update, content=PrunedPlaceholder(shorter, is_embed, parts, n_kept, whole))

    def _left(self, modality: str, item: Any, asked: Budget | None) -> tuple[int, ...] | None:
        """The visual tokens of an item that are left before the vision tower; None if this strategy or this request
        does not prune there."""
        strategy = self.settings.strategy_at(asked)
        if not isinstance(strategy, PatchStrategy) or "kept_before_tower" not in strategy.needs:
            return None
        places: list[int] = []
        start = 0
        for part in self.patches(modality, item):
            places += (start + selected_patches(strategy, part).kept).tolist()
            start += part.n_visual
        return tuple(places)

    def _shrunk(self, modality: str, item: Any, asked: Budget | None, n_visual: int) -> tuple[int, ...] | None:
        """Shrink an item to the budget of its request; None if this strategy does not shrink."""
        if not self.settings.shrinks:
            return None
        strategy = cast("ResizeStrategy | None", self.settings.strategy_at(asked))
        try:
            return self.shrink(modality, item, n_visual if strategy is None else strategy.resized_budget(n_visual))
        except PruningError as error:
            raise SettingError(str(error)) from error

    def _check_encoded(self, items: Mapping[str, Any]) -> None:
        """Raise SettingError for images or videos that were encoded elsewhere, if they must be seen. vLLM takes them
        with --enable-mm-embeds, which is refused in that case, but also with a connector for KV or encoder caches."""
        architecture = ARCHITECTURES[self.info.ctx.model_config.hf_config.architectures[0]]
        strategy = self.settings.strategy
        reason = needs_image(architecture, strategy)
        counted = architecture.needs_pixels or strategy.needs & {"kept_before_tower", "shrunk"}
        refused = ("sent", "not sent") if counted else ("sent",)
        for modality in self.pruned:
            if reason is not None and encoded_elsewhere(items.get(modality), modality) in refused:
                raise SettingError(f"{reason}, but this {modality} was encoded elsewhere. Send the {modality} itself.")

    def _check_length(self, dropped: int) -> None:
        longest = self.info.ctx.model_config.max_model_len
        provided = self.settings.n_positions(longest)
        if self.settings.position_ids == "original" and dropped + longest > provided:
            raise SettingError(
                f"the images and videos of this prompt lose {dropped} visual tokens, so its position IDs may run to "
                f"{dropped + longest}, but this engine provides {provided}. Send fewer, or keep more of them."
            )
