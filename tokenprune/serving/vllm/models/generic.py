"""Models that vLLM does not implement itself, on its Transformers backend: LLaVA with a DINOv2 tower, such as the
bundled model. They use tokenprune's model adapters, as in transformers."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from vllm.model_executor.models.transformers import (
    MultiModalDummyInputsBuilder,
    MultiModalMixin,
    MultiModalProcessingInfo,
    MultiModalProcessor,
    TransformersMultiModalForCausalLM,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters import ModelAdapter, adapter_for
from tokenprune.adapters.towers.layers import tokenwise_projector
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.towers.from_config import transformers_class
from tokenprune.serving.vllm.worker.capture import Capture, FusedCapture
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import tiled_images


class GenericProcessor(PruningProcessor, MultiModalProcessor): ...


@MULTIMODAL_REGISTRY.register_processor(
    GenericProcessor, info=MultiModalProcessingInfo, dummy_inputs=MultiModalDummyInputsBuilder
)
class PrunedTransformers(PrunedModel, TransformersMultiModalForCausalLM):
    """vLLM's wrapper of a transformers model, pruned."""

    @property
    def decoder(self) -> Any:
        """The module that holds the language model's rotary embeddings, which are transformers' and have no table."""
        return self.model.language_model

    def make_capture(self) -> Capture:
        adapter = self.adapter
        tower = adapter.vision_tower
        layer = adapter.tower.layers(tower)[adapter.encoder_layer(self.settings.strategy.attention_layer)]
        return FusedCapture(layer, adapter.tower.scale(tower))

    @property
    def tokenwise_projector(self) -> Any:
        projector = tokenwise_projector(self.adapter)
        return None if projector is None else projector()

    @property
    def adapter(self) -> ModelAdapter:
        """tokenprune's adapter for the model that vLLM wraps, found by the name of its class alone."""
        whole = type(transformers_class(self.config.model_type), (nn.Module,), {})()
        object.__setattr__(whole, "config", self.config)
        object.__setattr__(whole, "model", self.model)  # not as a submodule, which would hold it twice
        return adapter_for(whole)

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return {"pixel_values": arguments["num_image_patches"].tolist()}

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        adapter = self.adapter
        (image, *_) = (modality for modality in adapter.modalities if modality.name == "image")
        layouts = adapter.layouts(image, arguments, None)
        return tiled_images(self, layouts, [layout.n_tiles for layout in layouts], arguments[image.pixels])

    def forward(
        self,
        input_ids: Any,
        positions: Any = None,
        intermediate_tensors: Any = None,
        inputs_embeds: Any = None,
        **kwargs: Any,
    ) -> Any:
        # Not the mixin's own, which takes per-request position IDs for M-RoPE's.
        ids = self.step_ids(positions)
        return super(MultiModalMixin, self).forward(input_ids, ids, intermediate_tensors, inputs_embeds)
