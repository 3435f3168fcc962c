"""In the API server: an image gets one placeholder token for each token that will be kept, before it is encoded."""

# pyright: reportMissingImports=false

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from vllm.multimodal.inputs import MultiModalBatchedField, MultiModalFeatureSpec, MultiModalFieldElem
from vllm.multimodal.processing import BaseMultiModalProcessor, PromptUpdateDetails
from vllm.multimodal.processing.processor import ResolvedPromptUpdate

from tokenprune.errors import PruningError, SettingError, UnsupportedError
from tokenprune.serving.vllm.metrics import count_image
from tokenprune.serving.vllm.settings import KEEP_RATIO, Settings, split_request

#: The field that an image's item carries from the API server to the worker.
FIELD = "tokenprune"
#: The options of the largest input, which vLLM makes up to measure memory: an image that its request does not prune.
LARGEST: Mapping[str, object] = {KEEP_RATIO: 1.0}


@dataclass(frozen=True)
class Asked:
    """What is asked for one image.

    n_visual: how many visual tokens it has.
    keep_ratio: that of its request; None for the engine's own budget.
    key: a number that distinguishes it from other images, below 2**53.
    """

    n_visual: int
    keep_ratio: float | None
    key: int

    def element(self) -> MultiModalFieldElem:
        """The same as a field of a vLLM item. It stays on the CPU, and vLLM keeps it for a cached image."""
        ratio = float("nan") if self.keep_ratio is None else self.keep_ratio
        data = torch.tensor([self.n_visual, ratio, self.key], dtype=torch.float64)
        return MultiModalFieldElem(data=data, field=MultiModalBatchedField(keep_on_cpu=True))

    @classmethod
    def read(cls, data: Tensor) -> Asked:
        """Undo `element`, given the data of one item."""
        n_visual, ratio, key = data.tolist()
        return cls(int(n_visual), None if ratio != ratio else ratio, int(key))

    @classmethod
    def of(cls, feature: MultiModalFeatureSpec) -> Asked | None:
        """What is asked for an item of a prompt; None for one that is not pruned, such as a video."""
        if feature.modality != "image":
            return None
        data = None if feature.data is None or FIELD not in feature.data else feature.data[FIELD].data
        if not isinstance(data, Tensor):
            raise PruningError(
                "vLLM lost the data that tokenprune attached to an image. Report it with your vLLM version."
            )
        return cls.read(data)


@dataclass
class PrunedPlaceholder(PromptUpdateDetails):
    """An image's placeholder, of whose `n_visual` visual tokens `n_kept` are left."""

    n_visual: int = 0
    n_kept: int = 0


if TYPE_CHECKING:
    Base = BaseMultiModalProcessor[Any]
else:
    Base = object


class PruningProcessor(Base):
    """Mixed in before a vLLM processor class. Images are pruned, videos are not."""

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
        images = [update.content for update, *_ in result.prompt_updates.get("image", ())]
        try:
            self._check_length(sum(image.n_visual - image.n_kept for image in images))
        except SettingError:
            if inputs.cache is not None:  # the engine will not get the images, and must not be taken to have them
                for one in result.hashes["image"]:
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
        """Those of vLLM with shorter images; every image's item gets its `Asked`."""
        ratio, others = split_request(hf_processor_mm_kwargs)
        updates = dict(super()._get_mm_prompt_updates(mm_items, others, out_mm_kwargs))
        if updates.get("image"):  # not all of a prompt's images are cached
            updates["image"] = [
                [self._shortened(update, ratio, item) for update in of_item]
                for of_item, item in zip(updates["image"], out_mm_kwargs["image"], strict=True)
            ]
        return updates

    def _shortened(self, update: ResolvedPromptUpdate, ratio: float | None, item: Any) -> ResolvedPromptUpdate:
        """An image's update with as many placeholder tokens as are kept."""
        ids, is_embed = update.content.full, update.content.is_embed
        visual = torch.ones(len(ids), dtype=torch.bool) if is_embed is None else is_embed(ids)
        places = visual.nonzero()[:, 0].tolist()
        first, n = places[0], len(places)
        if places[-1] - first + 1 != n:
            raise UnsupportedError(
                "this model has markers between the visual tokens of an image, and how many tokens are kept between "
                "two markers is not known before the image is encoded. Serve it without pruning."
            )
        kept = self.settings.budget(n, ratio)
        item[FIELD] = Asked(n, ratio, random.getrandbits(53)).element()
        shorter = ids[:first] + ids[first + n - kept :]
        return replace(update, content=PrunedPlaceholder(shorter, is_embed, n_visual=n, n_kept=kept))

    def _check_length(self, dropped: int) -> None:
        longest = self.info.ctx.model_config.max_model_len
        provided = self.settings.n_positions(longest)
        if self.settings.position_ids == "original" and dropped + longest > provided:
            raise SettingError(
                f"the images of this prompt lose {dropped} visual tokens, so its position IDs may run to "
                f"{dropped + longest}, but this engine provides {provided}. Send fewer images, or a higher keep_ratio."
            )
