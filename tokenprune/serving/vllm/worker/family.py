"""What a family tells the plug-in about its model; the defaults are those of most."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.item import PrunedItem
from tokenprune.serving.vllm.towers.from_config import config_with_tower, n_heads
from tokenprune.serving.vllm.worker.before_tower import PatchDropping
from tokenprune.serving.vllm.worker.capture import AttentionCapture, Capture

if TYPE_CHECKING:
    Base = Any
else:
    Base = object


class Family(Base):
    """The base of `PrunedModel`.

    n_components: how many components a position ID has.
    pruned: the modalities that are pruned.
    one_size: whether all images of a call of the tower must have the same size.
    """

    n_components: ClassVar[int] = 1
    pruned: ClassVar[Collection[str]] = ("image",)
    one_size: ClassVar[bool] = False

    @property
    def decoder(self) -> Any:
        """The module that holds the language model's rotary embeddings."""
        return self.language_model

    @property
    def n_summed(self) -> int:
        """How many side-by-side parts, each of the language model's width, sum to the features of a visual token."""
        return 1

    def make_capture(self) -> Capture:
        """What captures the queries and keys of `attention_layer`."""
        return AttentionCapture(self.attention_module(), n_heads(config_with_tower(self.config).vision_config))

    @property
    def tokenwise_projector(self) -> Any:
        """The module that maps every patch to a visual token by itself, in families whose adapter has one; else
        None."""
        return None

    def attention_module(self) -> Any:
        """The attention module of `attention_layer`, in a tower of vLLM's own."""
        raise NotImplementedError(f"{type(self).__name__} defines neither attention_module nor make_capture.")

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        """The layout and declared statistics of every image, or separately pruned part, in a call of
        `embed_multimodal`. `features` are those of the images or videos."""
        raise NotImplementedError(f"{type(self).__name__} does not define encoded_images.")

    def normed(self, image: Real[Tensor, "channels height width"]) -> Float[Tensor, "channels height width"]:
        """The pixels of an image or tile as the tower's first layer sees them."""
        return image

    def make_patch_dropping(self) -> PatchDropping:
        """What lets the tower encode only some patches."""
        raise NotImplementedError(f"{type(self).__name__} does not define make_patch_dropping.")

    def grids(self, arguments: dict[str, Any]) -> Int[Tensor, "images 3"]:
        """How many frames, rows and columns of patches each image or video has, in a call of `embed_multimodal`."""
        raise NotImplementedError(f"{type(self).__name__} does not define grids.")

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        """How many rows each image or video has in those arguments of `embed_multimodal` that hold the rows of all in
        sequence."""
        return {}

    def as_passed(self, feature: Any, item: PrunedItem) -> Any:
        """An item of a prompt that was shrunk, with all that its position IDs depend on as it was passed."""
        return feature

    def offsets(self, image: EncodedImage) -> Int[Tensor, "visual components"]:
        """Each visual token's position ID minus that of the first one of the image or part."""
        return torch.arange(image.layout.n_visual)[:, None]
