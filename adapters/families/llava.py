"""LLaVA 1.0 and 1.5: an image is one square of patches and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.layouts.shrunk import ShrunkArguments, resized, shrunk_grid
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers.layers import BatchLayers, RowLayers, tokenwise_projector
from tokenprune.adapters.towers.row import image_row, pixel_sizes
from tokenprune.encoded import Modality
from tokenprune.errors import UnsupportedError
from tokenprune.tokens.layout import Layout


@register_adapter(
    "LlavaForConditionalGeneration",
    prompt_style="llava",
    names={r"(mistral-community/pixtral-12b(?!-240910)|\S+/pixtral\S*-hf)": "pixtral"},
    processor="LlavaProcessor",
    resizable=True,
    frames="llava_frames:LlavaFramesAdapter",
    views={"LlavaImage": ("padded", "cropped"), "CLIP": ("cropped",)},
)
class LlavaAdapter(ModelAdapter):
    """For LlavaForConditionalGeneration with a CLIP, SigLIP, DINOv2 or Pixtral tower."""

    tokenwise = "LlavaMultiModalProjector"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.check_patches()

    def check_patches(self) -> None:
        """Raise UnsupportedError unless the model takes exactly the patches from the tower's output."""
        self.check_selection(self.config.vision_feature_select_strategy)

    def check_selection(self, strategy: str) -> None:
        """Raise UnsupportedError for another way to select patches than the tower's."""
        fitting = "default" if self.tower.n_prefix else "full"
        if strategy != fitting:
            raise UnsupportedError(
                f"vision_feature_select_strategy={strategy!r} with a {self.vision_tower.config.model_type} tower does "
                f"not give one visual token per patch. Set model.config.vision_feature_select_strategy = {fitting!r} "
                f"if the model was trained that way."
            )

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        if (strategy := arguments.get("vision_feature_select_strategy")) is not None:
            self.check_selection(strategy)
        patch, pixels = self.config.vision_config.patch_size, arguments[modality.pixels]
        rows, columns = (patch, patch) if isinstance(patch, int) else patch
        padded = arguments.get("image_sizes") is not None
        sizes = pixel_sizes(arguments, modality.pixels) if padded else [pixels.shape[-2:]] * len(pixels)
        return [Layout.raster((1, height // rows, width // columns)) for height, width in sizes]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        both = zip(super().tile_pixels(arguments), pixel_sizes(arguments), strict=True)
        return [pixels[:, :height, :width] for pixels, (height, width) in both]

    @property
    def unshrunk(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.tower.attention is not None:
            return "in its prompts, every row of an image ends with a token that would have to go, too"
        embeddings = [weight for name, weight in self.vision_tower.named_parameters() if "position_embedding" in name]
        if any(weight.is_meta for weight in embeddings):  # interpolated without being fetched
            return "the position embeddings of its vision tower are offloaded. Load that whole, for instance on the CPU"
        return None if embeddings and type(self).layouts is LlavaAdapter.layouts else super().unshrunk

    def shrink(self, modality: Modality, arguments: Mapping[str, Any], budgets: Sequence[int]) -> ShrunkArguments:
        pixels, (whole, *_) = arguments[modality.pixels], self.layouts(modality, arguments, None)
        (_, height, width), (_, rows, columns) = whole.grid, shrunk_grid(whole.grid, min(budgets))
        if (rows, columns) == (height, width):
            return ShrunkArguments(dict(arguments), [tuple(pixels.shape[-2:])] * len(pixels))
        size = pixels.shape[-2] // height * rows, pixels.shape[-1] // width * columns
        return ShrunkArguments({**arguments, modality.pixels: resized(pixels, *size)}, [size] * len(pixels))

    @property
    def feature_layers(self) -> int | list[int]:
        """The hidden states of the tower that the projector gets; state 0 is the embedding."""
        return self.config.vision_feature_layer

    @property
    def tower_layers(self) -> BatchLayers | RowLayers | None:
        """The tower's layers, for models where an image is one tile, each patch is a visual token, and the projector
        gets one layer."""
        by_patch = type(self).layouts is LlavaAdapter.layouts
        return self.layers_by_merge(1) if by_patch else None

    def layers_by_merge(self, merge: int) -> BatchLayers | RowLayers | None:
        """The tower's layers, for a model where an image is one tile and merge x merge patches become a visual
        token."""
        if not isinstance(self.feature_layers, int):
            return None
        n_states = len(self.tower.layers(self.vision_tower)) + 1
        n_before = self.feature_layers % n_states - 1  # layer n - 1 makes state n; state 0 is the embedding
        if self.tower.attention is None:
            projector = tokenwise_projector(self)
            return BatchLayers.of(self.tower, self.vision_tower, n_before, projector=projector)
        describe = partial(image_row, patch=self.vision_tower.config.patch_size, merge=merge)
        return RowLayers.of(self.tower, self.vision_tower, range(n_before), describe)

    def consumed_layer(self, n_layers: int) -> int:
        """The layer that makes the features; the last, if several do."""
        states = [self.feature_layers] if isinstance(self.feature_layers, int) else self.feature_layers
        layer = max(state - 1 if state >= 0 else n_layers + state for state in states)
        if layer < 0:
            raise UnsupportedError(
                "vision_feature_layer=0 takes the embeddings, which no encoder layer makes. Write layer=-2, or the "
                "layer whose attention you want."
            )
        return layer
