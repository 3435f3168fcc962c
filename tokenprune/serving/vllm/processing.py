"""In the API server: an image, or a frame of a video, gets one placeholder token for each token that will be kept,
before it is encoded."""

# pyright: reportMissingImports=false

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from vllm.multimodal.inputs import MultiModalBatchedField, MultiModalFeatureSpec, MultiModalFieldElem
from vllm.multimodal.processing import BaseMultiModalProcessor, PromptUpdateDetails
from vllm.multimodal.processing.processor import ResolvedPromptUpdate

from tokenprune.errors import PruningError, SettingError, UnsupportedError
from tokenprune.serving.vllm.markers import Markers, markers_between
from tokenprune.serving.vllm.metrics import count_image
from tokenprune.serving.vllm.settings import KEEP_RATIO, Settings, split_request

#: The field that the item of an image or video carries from the API server to the worker.
FIELD = "tokenprune"
#: The options of the largest input, which vLLM makes up to measure memory: an image that its request does not prune.
LARGEST: Mapping[str, object] = {KEEP_RATIO: 1.0}


@dataclass(frozen=True)
class Asked:
    """What is asked for one image or video.

    n_visual: how many visual tokens it has.
    keep_ratio: that of its request; None for the engine's own budget.
    key: a number that distinguishes it from others, below 2**53.
    n_frames: how many frames it has, of as many tokens each, which are pruned one by one; 1 for an image.
    markers: the text between the visual tokens of an image, which has placeholder tokens too.
    """

    n_visual: int
    keep_ratio: float | None
    key: int
    n_frames: int = 1
    markers: Markers = ()

    @property
    def n_places(self) -> int:
        """How many placeholder tokens it would have if it were not pruned."""
        return self.n_visual + len(self.markers)

    def element(self) -> MultiModalFieldElem:
        """The same as a field of a vLLM item. It stays on the CPU, and vLLM keeps it for a cached image."""
        ratio = float("nan") if self.keep_ratio is None else self.keep_ratio
        numbers = (self.n_visual, ratio, self.key, self.n_frames, *chain.from_iterable(self.markers))
        data = torch.tensor(numbers, dtype=torch.float64)
        return MultiModalFieldElem(data=data, field=MultiModalBatchedField(keep_on_cpu=True))

    @classmethod
    def read(cls, data: Tensor) -> Asked:
        """Undo `element`, given the data of one item."""
        n_visual, ratio, key, n_frames, *markers = data.tolist()
        pairs = ((int(place), int(token)) for place, token in zip(markers[::2], markers[1::2], strict=True))
        return cls(int(n_visual), None if ratio != ratio else ratio, int(key), int(n_frames), tuple(pairs))

    @classmethod
    def of(cls, feature: MultiModalFeatureSpec, pruned: Collection[str]) -> Asked | None:
        """What is asked for an item of a prompt; None for one of a modality that is not `pruned`."""
        if feature.modality not in pruned:
            return None
        data = None if feature.data is None or FIELD not in feature.data else feature.data[FIELD].data
        if not isinstance(data, Tensor):
            raise PruningError(
                f"vLLM lost the data that tokenprune attached to one {feature.modality}. Report it with your vLLM "
                f"version."
            )
        return cls.read(data)


@dataclass
class PrunedPlaceholder(PromptUpdateDetails):
    """The placeholder of an image or video, of whose `n_visual` visual tokens `n_kept` are left."""

    n_visual: int = 0
    n_kept: int = 0


if TYPE_CHECKING:
    Base = BaseMultiModalProcessor[Any]
else:
    Base = object


class PruningProcessor(Base):
    """Mixed in before a vLLM processor class.

    pruned: the modalities that are pruned, as the model class has them.
    has_markers: whether there may be text between the visual tokens of an image; a model that has it prunes no videos,
        and its position IDs have one component.
    """

    pruned: ClassVar[Collection[str]] = ("image",)
    has_markers: ClassVar[bool] = False

    def n_frames(self, modality: str, item: Any) -> int:
        """How many frames an item has that are pruned one by one."""
        return 1

    @cached_property
    def settings(self) -> Settings:
        return Settings.of(self.info.get_hf_config())

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
        inputs = super().get_dummy_inputs(*args, **kwargs)
        inputs.hf_processor_mm_kwargs = LARGEST
        return inputs

    def _get_mm_hashes(self, inputs: Any) -> Any:
        """Those of vLLM, which hold the request's keep ratio, with the engine's settings: caches may be shared."""
        hashes = super()._get_mm_hashes(inputs)
        return {modality: [f"{one}-{self.settings.digest}" for one in ones] for modality, ones in hashes.items()}

    def _cached_apply_hf_processor(self, inputs: Any, timing_ctx: Any) -> Any:
        """Process the images of one prompt. Raises SettingError for a keep ratio that cannot be right or is mistyped,
        and for one so low that the unpruned prompt has more position IDs than the engine provides."""
        self.settings.check_options(inputs.hf_processor_mm_kwargs, request=True)
        ratio, _ = split_request(inputs.hf_processor_mm_kwargs)
        self.settings.strategy_at(ratio)  # raises, before anything is processed
        result = super()._cached_apply_hf_processor(inputs, timing_ctx)
        images = [update.content for one in self.pruned for update, *_ in result.prompt_updates.get(one, ())]
        try:
            self._check_length(sum(image.n_visual - image.n_kept for image in images))
        except SettingError:
            if inputs.cache is not None:  # the engine will not get the images, and must not be taken to have them
                for modality in self.pruned:
                    for one in result.hashes.get(modality, ()):
                        inputs.cache.invalidate(one)
            raise
        if inputs.hf_processor_mm_kwargs is not LARGEST:
            for image in images:
                count_image(image.n_visual, image.n_kept)
        return result

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        return super()._apply_hf_processor_main(mm_items, split_request(hf_kwargs)[1])

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        return super()._get_mm_fields_config(hf_inputs, split_request(hf_processor_mm_kwargs)[1])

    def _get_mm_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> dict[str, Sequence[Sequence[ResolvedPromptUpdate]]]:
        """Those of vLLM with shorter images and frames; every pruned item gets its `Asked`."""
        ratio, others = split_request(hf_processor_mm_kwargs)
        updates = dict(super()._get_mm_prompt_updates(mm_items, others, out_mm_kwargs))
        for modality in self.pruned:
            if updates.get(modality):  # not all of a prompt's are cached
                updates[modality] = [
                    [self._shortened(update, ratio, item, self.n_frames(modality, item)) for update in of_item]
                    for of_item, item in zip(updates[modality], out_mm_kwargs[modality], strict=True)
                ]
        return updates

    def _shortened(
        self, update: ResolvedPromptUpdate, ratio: float | None, item: Any, n_frames: int
    ) -> ResolvedPromptUpdate:
        """An item's update with as many placeholder tokens for each frame as are kept of it, and one for each of an
        image's markers."""
        ids, is_embed = [*update.content.full], update.content.is_embed
        visual = torch.ones(len(ids), dtype=torch.bool) if is_embed is None else is_embed(ids)
        frames = visual.nonzero()[:, 0].view(n_frames, -1)
        n, first = frames.shape[1], int(frames[0, 0])
        markers = markers_between(ids, visual) if self.has_markers else ()
        if not self.has_markers and bool((frames[:, -1] - frames[:, 0] + 1 != n).any()):
            raise UnsupportedError(
                "this model has text between the visual tokens of an image, which is not known of its family. Serve it "
                "without pruning."
            )
        for place, _ in markers:
            ids[first + place] = ids[first]
        kept = self.settings.budget(n, ratio)
        dropped = {*frames[:, kept:].flatten().tolist()}
        item[FIELD] = Asked(n * n_frames, ratio, random.getrandbits(53), n_frames, markers).element()
        shorter = [one for place, one in enumerate(ids) if place not in dropped]
        counts = {"n_visual": n * n_frames, "n_kept": kept * n_frames}
        return replace(update, content=PrunedPlaceholder(shorter, is_embed, **counts))

    def _check_length(self, dropped: int) -> None:
        longest = self.info.ctx.model_config.max_model_len
        provided = self.settings.n_positions(longest)
        if self.settings.position_ids == "original" and dropped + longest > provided:
            raise SettingError(
                f"the images and videos of this prompt lose {dropped} visual tokens, so its position IDs may run to "
                f"{dropped + longest}, but this engine provides {provided}. Send fewer, or a higher keep_ratio."
            )
