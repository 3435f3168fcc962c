"""What a vLLM model class of any family needs to prune images.

embed_multimodal     the tower runs, the strategy selects; kept tokens get their offsets appended
embed_input_ids      every step, before `forward`: removes the offsets again
forward              adds them to the step's position IDs
get_mrope_input_positions   once per request: the position IDs of the unpruned prompt
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad
from vllm.distributed import get_tensor_model_parallel_world_size, get_tp_group
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFeatureSpec,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    PlaceholderRange,
)
from vllm.multimodal.utils import copy_mm_embedding_modality

from tokenprune.adapters.layouts.frames import video_layout
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.item import FIELD, PrunedItem
from tokenprune.serving.vllm.processor.markers import visual_among
from tokenprune.serving.vllm.relied_on import MODEL, check_overridden
from tokenprune.serving.vllm.settings import Settings
from tokenprune.serving.vllm.startup.differences import warn_of_differences
from tokenprune.serving.vllm.startup.drafts import read_without_offsets
from tokenprune.serving.vllm.startup.engine_options import encodes_apart
from tokenprune.serving.vllm.towers.from_config import config_with_tower, encoder_layer
from tokenprune.serving.vllm.worker.batches import arguments_of, image_batches, one_of
from tokenprune.serving.vllm.worker.capture import ProjectorCapture
from tokenprune.serving.vllm.worker.family import Family
from tokenprune.serving.vllm.worker.positions import (
    StepPositions,
    append_offsets,
    compact_ids,
    pruned_ids,
    unpruned_prompt,
    visual_places,
)
from tokenprune.serving.vllm.worker.rope import lengthen
from tokenprune.serving.vllm.worker.selector import ImageSelector, spread, with_left
from tokenprune.tokens import Layout


class PrunedModel(Family):
    """Mixed in before a vLLM model class."""

    supports_mrope: ClassVar = True

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        check_overridden(cls, MODEL, SupportsMRoPE)

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        model_config, config = vllm_config.model_config, vllm_config.model_config.hf_config
        self.settings = Settings.of(config)
        strategy = self.settings.strategy
        most = max(
            vllm_config.scheduler_config.max_num_batched_tokens,
            vllm_config.compilation_config.max_cudagraph_capture_size or 0,
        )
        width, first = config.get_text_config().hidden_size, get_tp_group().is_first_rank
        adds = self.settings.position_ids == "original"
        self.step = StepPositions(self.n_components, most, width, adds)
        self.most_at_once = vllm_config.scheduler_config.max_num_encoder_input_tokens
        self.selector = ImageSelector(self.settings, width, self.n_summed, reports=first)
        self.capture = self.make_capture() if "vision_attention" in strategy.needs else None
        if self.capture is not None:
            self.capture.apart = encodes_apart(vllm_config)
        projector = self.tokenwise_projector if "tower_features" in strategy.needs else None
        self.unprojected = None if projector is None else ProjectorCapture(projector)
        self.before_tower = self.make_patch_dropping() if "kept_before_tower" in strategy.needs else None
        lengthen(self.decoder, self.settings, model_config.max_model_len)
        if vllm_config.speculative_config is not None:
            read_without_offsets(vllm_config.speculative_config, width)
        if first:
            warn_of_differences(model_config, self.settings, self.decoder)

    # What families use.

    @property
    def attention_layer(self) -> int:
        """The index of the encoder layer whose attention the strategy reads."""
        return encoder_layer(config_with_tower(self.config), self.settings.strategy.attention_layer)

    def whole(self, states: Float[Tensor, "heads left width"]) -> Float[Tensor, "heads patches width"]:
        """A tower layer's states for the patches of a call, with zeros for those that were not encoded."""
        return states if self.before_tower is None else self.before_tower.whole(states)

    def real(self, tiles: Sequence[Layout]) -> Sequence[Bool[Tensor, "1 patches"] | None]:
        """Which patches of each tile of a call, in raster order, were encoded; None for all."""
        return [None] * len(tiles) if self.before_tower is None else self.before_tower.real()

    # What vLLM calls.

    def embed_multimodal(self, **kwargs: Any) -> Any:
        self.step.reached.note("embed_multimodal")
        fields = kwargs.pop(FIELD, None)
        if fields is None:  # videos that are not pruned
            encoded = super().embed_multimodal(**kwargs)
            self._clear()
            return [append_offsets(rows, rows.new_zeros(len(rows), self.n_components).long()) for rows in encoded]
        items = [PrunedItem.read(field) for field in fields]
        sizes = [item.shrunk for item in items] if self.one_size else None
        batches = image_batches([sum(item.encoded) for item in items], self.most_at_once, sizes)
        rows = self.rows_of_images(kwargs) if len(batches) > 1 else {}
        placed = []
        for batch in batches:
            arguments = arguments_of(kwargs, len(items), batch, rows)
            self._clear()
            before = self.before_tower
            with nullcontext() if before is None else before.encoding(self.grids(arguments), items[batch]):
                encoded = list(super().embed_multimodal(**arguments))
                images = iter(self.encoded_images(arguments, encoded))
            self._clear()
            for features, item in zip(encoded, items[batch], strict=True):
                frames = list(islice(images, item.n_encoded))
                given = one_of(arguments, len(encoded), len(placed) - batch.start) if item.n_frames else {}
                placed.append(self._placed(features, frames, item, given))
        return placed

    def embed_input_ids(
        self, input_ids: Tensor, multimodal_embeddings: Any = None, *, is_multimodal: Tensor | None = None
    ) -> Tensor:
        embeddings = [] if multimodal_embeddings is None else list(multimodal_embeddings)
        self.step.check(embeddings)
        rows = [
            copy_mm_embedding_modality(given, features)
            for given, features in zip(embeddings, self.step.unpack(embeddings, is_multimodal), strict=True)
        ]
        return super().embed_input_ids(input_ids, rows or None, is_multimodal=is_multimodal)

    def forward(
        self,
        input_ids: Any,
        positions: Any = None,
        intermediate_tensors: Any = None,
        inputs_embeds: Any = None,
        **kwargs: Any,
    ) -> Any:
        return super().forward(input_ids, self.step_ids(positions), intermediate_tensors, inputs_embeds, **kwargs)

    def step_ids(self, positions: Int[Tensor, "rows scheduled"]) -> Tensor:
        """The position IDs of a step, in the shape that the model class takes."""
        ids = self.step.apply(positions)
        return ids if self.n_components > 1 else ids[0]

    def get_mrope_input_positions(self, input_tokens: Sequence[int], mm_features: Any) -> tuple[Tensor, int]:
        tokens = list(input_tokens)  # from vLLM 0.34 on, an array
        items = [PrunedItem.of(feature, self.pruned) for feature in mm_features]
        if any(item is not None for item in items):
            self.step.reached.note("get_mrope_input_positions")
        self._name(mm_features, items)
        if self.settings.position_ids == "compact":
            pruned = any(
                item is not None and sum(item.encoded) + len(item.markers) > len(visual_places(feature.mm_position))
                for feature, item in zip(mm_features, items, strict=True)
            )
            if pruned:
                return compact_ids(len(tokens), self.n_components)
            return self.unpruned_ids(tokens, mm_features)
        whole = [
            feature if item is None or item.shrunk is None else self.as_passed(feature, item)
            for feature, item in zip(mm_features, items, strict=True)
        ]
        parts = [None if item is None else item.places(self.settings) for item in items]
        counts = {id(feature): count for feature, count in zip(whole, parts, strict=True)}
        texts = {
            id(feature): item.unpruned() if item is not None and item.n_frames else None
            for feature, item in zip(whole, items, strict=True)
        }
        ids, features, places = unpruned_prompt(
            tokens, whole, lambda feature: counts[id(feature)], lambda feature: texts[id(feature)]
        )
        return pruned_ids(*self.unpruned_ids(ids, features), places)

    def unpruned_ids(self, ids: list[int], features: Any) -> tuple[Tensor, int]:
        """The position IDs of an unpruned prompt and the delta for what follows."""
        if self.n_components > 1:
            return super().get_mrope_input_positions(ids, features)
        return compact_ids(len(ids), self.n_components)

    def _clear(self) -> None:
        for capture in (self.capture, self.unprojected):
            if capture is not None:
                capture.clear()

    def _name(self, features: Any, items: Sequence[PrunedItem | None]) -> None:
        for feature, item in zip(features, items, strict=True):
            if item is not None and self.selector.file is not None:
                self.selector.file.name(item.key, feature.identifier)

    def _placed(
        self, features: Tensor, images: Sequence[EncodedImage], item: PrunedItem, given: Mapping[str, Any]
    ) -> Tensor:
        """`given`: the arguments of a video whose frames are pruned together."""
        parts, indices, start = [], [], 0
        encoded = with_left(images, item, features.device)
        if item.n_frames:
            encoded = [EncodedImage.concat(encoded, video_layout)]
        for part, image, n_kept in zip(features.split(item.encoded), encoded, item.n_kept(self.settings), strict=True):
            part, image = spread(part, image, item)
            rows, kept = self.selector.select(part, image, item.asked, n_kept)
            places, offsets = kept, self.offsets(image) if item.n_frames == 0 else self._video_offsets(item, given)
            if item.markers:
                rows, places = self._among_markers(rows, kept, item)
                offsets = offsets if item.n_frames else torch.arange(item.n_visual + len(item.markers))[:, None]
            parts.append(append_offsets(rows, offsets.to(places.device)[places]))
            indices.append(kept + start)
            start += len(part)
        self.selector.record(item, torch.cat(indices))
        placed = torch.cat(parts)
        if get_tensor_model_parallel_world_size() > 1:
            placed = get_tp_group().broadcast(placed.contiguous())  # every rank keeps the same as the first
        return placed

    def _among_markers(
        self, rows: Float[Tensor, "kept columns"], kept: Int[Tensor, " kept"], item: PrunedItem
    ) -> tuple[Float[Tensor, "places columns"], Int[Tensor, " places"]]:
        """The rows of an item's kept tokens and the embeddings of its markers, in order, and their places. What the
        tower adds to decoder layers is in further columns, which are zero for markers."""
        places, ids = torch.tensor(item.markers, device=rows.device).T
        visual = visual_among(item.markers, item.n_visual).to(kept.device)
        in_order, order = torch.cat([visual[kept], places]).sort()
        text = super().embed_input_ids(ids).to(rows)
        return torch.cat([rows, pad(text, (0, rows.shape[1] - text.shape[1]))])[order], in_order

    def _video_offsets(self, item: PrunedItem, given: Mapping[str, Any]) -> Int[Tensor, "places components"]:
        """The position ID of each token of a video's placeholder minus that of the first one."""
        ids, visual = item.unpruned()
        data = {name: MultiModalFieldElem(data=value, field=MultiModalBatchedField()) for name, value in given.items()}
        where = PlaceholderRange(0, len(ids), is_embed=visual)
        video = MultiModalFeatureSpec(MultiModalKwargsItem(data), "video", "", where)
        found = self.unpruned_ids(ids, [video])[0][: self.n_components]
        return (found - found[:, :1]).T
