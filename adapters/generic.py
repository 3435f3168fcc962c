"""Adapters for the interface that transformers' vision-language models share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.base import Inputs, ModelAdapter
from tokenprune.adapters.decoder.attention import unreadable_attention
from tokenprune.adapters.decoder.config import Decoder
from tokenprune.adapters.decoder.deepstack import ADDS_FEATURES, FEATURES, MASK, prune_added, prune_deepstack
from tokenprune.adapters.refused import is_refused, refusal
from tokenprune.encoded import Modality
from tokenprune.errors import PruningError, UnsupportedError
from tokenprune.sequence.packing import Packing
from tokenprune.tokens.layout import Grid3, Layout

#: Names of the pixels in calls of a base model, in order of preference.
PIXELS = {
    "image": ("pixel_values", "pixel_values_images", "flattened_patches", "image_patches"),
    "video": ("pixel_values_videos", "pixel_values"),
}
#: Arguments of a language model that the engine prunes itself, and those of DeepStack.
PRUNED_ELSEWHERE = {"inputs_embeds", "attention_mask", "position_ids", MASK, FEATURES}


class DeepStack(Inputs):
    """For a family whose language model adds more features after its first layers: prunes these features."""

    inner_features = ADDS_FEATURES

    def prune_arguments(self, kwargs: dict[str, Any], packing: Packing, n_slots: int) -> None:
        super().prune_arguments(kwargs, packing, n_slots)
        prune_deepstack(kwargs, packing)

    def prune_inner_features(self, arguments: tuple[Any, ...], packing: Packing) -> tuple[Any, ...]:
        return prune_added(arguments, packing)


class InterfaceAdapter(ModelAdapter):
    """For a class with `get_image_features`, `get_decoder` and a placeholder token for every visual token.

    It knows how many tokens an image has, and where they are. How the vision tower is read is up to subclasses.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.config = model.config
        if not self.modalities:
            raise UnsupportedError(
                f"{type(model).__name__} does not follow the interface that the generic adapter needs: a base model "
                f"with get_image_features, and image_token_id in its config. Write an adapter: see adapters/README.md."
            )
        self.decoder = Decoder.of(self.config.get_text_config(), self.noncausal, self.language_model, self.layers)

    @property
    def core(self) -> Any:
        inner = getattr(self.model, "model", None)
        return inner if hasattr(inner, "get_image_features") else self.model

    @property
    def language_model(self) -> nn.Module:
        decoder = cast(Any, self.model).get_decoder()
        return getattr(decoder, "model", decoder)  # some hold a whole causal language model

    @property
    def description(self) -> str:
        return type(self.model).__name__

    @property
    def modalities(self) -> tuple[Modality, ...]:
        modalities = []
        for name in ("image", "video"):
            function, token_id = f"get_{name}_features", getattr(self.config, f"{name}_token_id", None)
            taken = inspect.signature(type(self.core).forward).parameters
            pixels = next((pixels for pixels in PIXELS[name] if pixels in taken), None)
            if token_id is not None and pixels is not None and hasattr(self.core, function):
                modalities.append(Modality(name, function, pixels, token_id))
        return tuple(modalities)

    @property
    def inner_features(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return ADDS_FEATURES if hasattr(self.language_model, ADDS_FEATURES) else None

    @property
    def offers_without_tower(self) -> frozenset[str]:
        """The statistics that are available without reading the vision tower."""
        text = {"text_attention"} if unreadable_attention(self.layers) is None else set()
        grid = {"grid"} if all(self._takes_grids(modality) for modality in self.modalities) else set()
        return frozenset({"pixels", *text, *grid, *(self.frames_offered if grid else ())})

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        """One row of tokens for each image, unless the model is told the image's grid."""
        counts = [image[..., 0].numel() for image in self.features(output)]
        grids = grids_of(modality, arguments, counts, self._merge)
        return [Layout.raster(grid) for grid in grids or [(1, 1, count) for count in counts]]

    def features(self, output: Any) -> Sequence[Float[Tensor, "*tokens width"]]:
        """The features of every image, from the output of the function that encodes them. In a class from outside
        transformers, this may be the features alone, as one tensor or one for each image.

        Raises PruningError if the features of all images are one matrix, which does not say where an image begins, and
        for any other output.
        """
        features = getattr(output, "pooler_output", output)
        if not isinstance(features, (Tensor, list, tuple)) or any(not isinstance(image, Tensor) for image in features):
            raise PruningError(
                f"{type(self).__name__} cannot read the features that {type(self.model).__name__} makes of images: "
                f"they are in a {type(features).__name__}. Return a tensor of shape (images, tokens, width) or a list "
                f"of tensors (tokens, width), or write an adapter with `features`: see adapters/README.md."
            )
        if isinstance(features, Tensor) and features.ndim == 2:
            raise PruningError(
                f"{type(self.model).__name__} gives the features of all images as one matrix of shape "
                f"{tuple(features.shape)}, in which {type(self).__name__} cannot tell images apart. Write an adapter "
                f"with `features`: see adapters/README.md."
            )
        return list(features)

    def image_pixels(self, modality: Modality, arguments: Mapping[str, Any], layouts: list[Layout]) -> list[Tensor]:
        return image_pixels(modality, arguments, len(layouts))

    def prune_arguments(self, kwargs: dict[str, Any], packing: Packing, n_slots: int) -> None:
        """Prune DeepStack's features, and every tensor that runs along the sequence: (batch or 1, length, ...)."""
        prune_deepstack(kwargs, packing)
        for name, value in kwargs.items():
            if name not in PRUNED_ELSEWHERE and packing.runs_along(value):
                kwargs[name] = packing.gather_tokens(value)

    def unprunable(self, kwargs: Mapping[str, Any]) -> list[str]:
        """Raise PruningError for videos that the model encodes in an unknown way."""
        videos = PIXELS["video"][0]
        if kwargs.get(videos) is not None and videos not in [modality.pixels for modality in self.modalities]:
            raise PruningError(
                f"{type(self.model).__name__} got {videos}, and {type(self).__name__} does not know how it encodes "
                f"videos, so they cannot be pruned. Remove the patch for calls with videos, or pass frames as images."
            )
        return super().unprunable(kwargs)

    def prune_inner_features(self, arguments: tuple[Any, ...], packing: Packing) -> tuple[Any, ...]:
        return prune_added(arguments, packing)

    @property
    def _merge(self) -> int | None:
        """The width and height of a visual token in patches, for models that take images of any size."""
        vision = getattr(self.config, "vision_config", None)
        return getattr(vision, "spatial_merge_size", getattr(vision, "merge_size", None))

    def _takes_grids(self, modality: Modality) -> bool:
        function = getattr(self.core, modality.function)
        return self._merge is not None and grid_argument(modality) in inspect.signature(function).parameters


class GenericAdapter(InterfaceAdapter):
    """For a class whose vision tower is unknown: strategies that read the tower's attention are refused; those that
    read features, pixels or the text's attention work. No class gets it by default; some files of `families/` derive
    from it.
    """

    def __init__(self, model: nn.Module) -> None:
        names = [cls.__name__ for cls in type(model).__mro__]
        if type(self) is GenericAdapter and is_refused(names):  # in some, generate would never prune
            raise UnsupportedError(refusal(names))
        super().__init__(model)

    @property
    def vision_tower(self) -> Any:
        encoder = cast(Any, self.model).get_encoder(modality="image")
        return None if encoder in (self.model, self.core) else encoder

    @property
    def vision_towers(self) -> tuple[Any, ...]:
        return ()

    @property
    def offers(self) -> frozenset[str]:
        return self.offers_without_tower


def grid_argument(modality: Modality) -> str:
    """The argument with (frames, rows, columns) of every image, in patches, in models that take images of any size."""
    return f"{modality.name}_grid_thw"


def grids_of(
    modality: Modality, arguments: Mapping[str, Any], counts: Sequence[int], merge: int | None
) -> list[Grid3] | None:
    """Return the grid of every image in visual tokens, `merge` x `merge` patches each; None if the arguments have no
    grids, or grids that do not agree with the `counts` of visual tokens."""
    patches = arguments.get(grid_argument(modality))
    if patches is None or merge is None:
        return None
    grids = [(n_frames, rows // merge, columns // merge) for n_frames, rows, columns in patches.tolist()]
    return grids if [t * h * w for t, h, w in grids] == list(counts) else None


def image_pixels(
    modality: Modality, arguments: Mapping[str, Any], n_images: int
) -> list[Float[Tensor, "channels height width"]]:
    """Return the pixels of every image as the model takes them: one channel with a patch per row, or all channels of
    all tiles."""
    pixels, grids = arguments[modality.pixels], arguments.get(grid_argument(modality))
    if grids is not None and int(grids.prod(-1).sum()) == len(pixels):
        parts = pixels.split(grids.prod(-1).tolist())
    else:
        tiles = pixels.flatten(0, 1) if pixels.ndim == 5 and len(pixels) != n_images else pixels
        parts = tiles.tensor_split(n_images)
    return [part.reshape(-1, *part.shape[-2:]) for part in parts]
