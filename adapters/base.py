"""The contract of a model adapter: what a family must and may answer, question by question."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tokenprune.adapters.conventions import tiles_in, unprunable_arguments
from tokenprune.adapters.decoder.attention import unreadable_attention
from tokenprune.adapters.decoder.config import Decoder
from tokenprune.adapters.layouts.shrunk import WINDOWED, Shrinks
from tokenprune.adapters.towers import Tower, tower_of
from tokenprune.adapters.towers.layers import BatchLayers, RowLayers, tokenwise_projector
from tokenprune.adapters.towers.tower import QueryKey
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.errors import UnsupportedError
from tokenprune.sequence.packing import Packing
from tokenprune.tokens.attention import split_heads
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.visual import Offered


class Parts(ABC):
    """Where are the parts?

    model, config: the loaded model and its configuration.
    tower: how the model's vision tower is read.
    decoder: how the model's language model attends.
    """

    model: nn.Module
    config: Any
    tower: Tower
    decoder: Decoder

    #: Why tokens cannot be dropped, nor layers skipped, inside the language model; None if nothing forbids it.
    only_before: str | None = None

    @property
    def core(self) -> Any:
        """The base model, whose forward inserts the visual features and calls the language model."""
        return getattr(self.model, "model", None)

    @property
    def language_model(self) -> nn.Module:
        """The decoder without its head."""
        return self.core.language_model

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers. Raises UnsupportedError for a language model that does not keep them in `.layers`."""
        layers = getattr(self.language_model, "layers", None)
        if layers is None:
            kind = self.config.get_text_config().model_type
            raise UnsupportedError(
                f"a {kind} language model is not supported: {type(self.language_model).__name__} has no .layers whose "
                f"attention takes position IDs and masks. Load a model with another language model, such as Llama's, "
                f"Qwen's or Mistral's."
            )
        return cast(nn.ModuleList, layers)

    @property
    def vision_tower(self) -> Any:
        """The module that encodes images; None if the model was loaded without it."""
        return getattr(self.core, "vision_tower", None)

    @property
    def vision_towers(self) -> tuple[Any, ...]:
        """Every module that encodes images or videos; if there are several, they are of one kind."""
        return (self.vision_tower,)

    @property
    def resampler(self) -> Any:
        """The module after the vision tower whose queries become the visual tokens, if their attention is read too."""
        return None

    def describe_tower(self) -> Tower:
        """Return how the vision tower is read. Raises UnsupportedError for an unknown kind."""
        return tower_of(self.vision_tower.config.model_type, type(self.model).__name__)

    def known_tower(self) -> Tower:
        """Return `describe_tower`. Raises UnsupportedError for a model that was loaded without its vision tower."""
        if self.vision_tower is None:
            name = type(self.model).__name__
            raise UnsupportedError(
                f"{name} without a vision tower has no visual tokens to prune. Load the whole model, for instance with "
                f"{name}.from_pretrained(...)."
            )
        return self.describe_tower()

    @property
    def description(self) -> str:
        """The model in a few words, for error messages."""
        return f"{type(self.model).__name__} with a {self.vision_tower.config.model_type} tower"


class Inputs(Parts):
    """Which inputs does the model take, and which of them shrink?

    `kwargs` are the arguments of a call of `core` by name, unless a method says otherwise.
    """

    #: Whether the model takes videos too, under the common names.
    takes_video: bool = False
    #: Further arguments of the language model that run along the sequence: (batch, length, ...).
    sequence_arguments: tuple[str, ...] = ()
    #: Whether the base model makes masks for its language model that are not causal.
    noncausal: bool = False
    #: The method of the language model, if any, that adds features to visual tokens between decoder layers.
    inner_features: str | None = None
    #: Whether visual tokens enter the language model without features, which are then added between decoder layers.
    late_features: bool = False

    @property
    def first_stage(self) -> int:
        """The first decoder layer on entry to which tokens can be dropped inside the language model."""
        return 1

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The kinds of visual input that the model takes."""
        image = Modality("image", "get_image_features", "pixel_values", self.config.image_token_id)
        if not self.takes_video:
            return (image,)
        video = Modality("video", "get_video_features", "pixel_values_videos", self.config.video_token_id)
        return image, video

    def visual_mask(self, modality: Modality, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch length"] | None:
        """Which of a call's new columns are visual tokens of a modality; None if the call brings none."""
        if kwargs.get(modality.pixels) is None and self.encoded(modality, kwargs) is None:
            return None
        return self.columns_of(modality.token_id, kwargs)

    def columns_of(self, token_id: int, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch length"]:
        """Which of a call's new columns hold a token, even if the call brings embeddings."""
        if kwargs.get("input_ids") is not None:
            return kwargs["input_ids"] == token_id
        embeds, embedding = kwargs["inputs_embeds"], self.core.get_input_embeddings()
        return (embeds == embedding(torch.tensor(token_id, device=embeds.device))).all(-1)

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"] | None:
        """Which of the `visual` columns start an image, for models that take tiles without the sizes of their images;
        None if every layout is one image."""
        return None

    def encoded(self, modality: Modality, kwargs: Mapping[str, Any]) -> Any:
        """The output of the encoding function, if `generate` called it before the model (since transformers 5.2x)."""
        return (kwargs.get("mm_encoder_outputs") or {}).get(modality.name)

    def prune_arguments(self, kwargs: dict[str, Any], packing: Packing, n_slots: int) -> None:
        """Prune, in place, the language model's arguments besides inputs_embeds, attention_mask and position_ids.
        `n_slots` slots of the cache are filled already."""
        for name in self.sequence_arguments:
            tensor = kwargs.get(name)
            if tensor is not None and tensor.shape[1] == packing.n_columns:  # on others, the model raises its own error
                kwargs[name] = packing.gather_tokens(tensor)

    def prune_inner_features(self, arguments: tuple[Any, ...], packing: Packing) -> tuple[Any, ...]:
        """Prune the arguments of `inner_features` to the columns that an in-LLM stage has left. The first of them,
        hidden states, is already pruned."""
        raise NotImplementedError(f"{type(self).__name__} sets inner_features: define prune_inner_features too.")

    def visual_features(self, kwargs: Mapping[str, Any]) -> Float[Tensor, "batch length width"]:
        """What strategies read as the features of visual tokens, from the language model's arguments, in models with
        `late_features`."""
        raise NotImplementedError(f"{type(self).__name__} sets late_features: define visual_features too.")

    def merge_late(self, kwargs: dict[str, Any], merge: Callable[[Tensor], Tensor]) -> None:
        """Apply `merge`, which merges dropped tokens into kept ones and keeps the shape (batch, length, width), to the
        `late_features` among the language model's arguments, in place."""
        raise NotImplementedError(f"{type(self).__name__} sets late_features: define merge_late too.")

    def check_length(self, n_columns: int) -> None:
        """Raise PruningError for a pruned sequence that is too long, dropped tokens included."""

    def unprunable(self, kwargs: Mapping[str, Any]) -> list[str]:
        """The arguments in a call of the model that only fit the unpruned sequence, by name."""
        return unprunable_arguments(kwargs, self.model)


class Vision(Shrinks, Parts):
    """Which layout does each image have, and which statistics are available?"""

    #: The class of transformers' projector, if it maps every token by itself; models with others inherit the adapter.
    tokenwise: str | None = None
    #: How a video becomes several images, each with a layout of its own; None if it stays one.
    splits_videos: str | None = None

    @abstractmethod
    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        """The layout of every image that one call of the modality's encoding function encoded, from its arguments by
        name and its output."""

    @property
    def offers(self) -> Set[str]:
        """The available statistics, by their names in `tokenprune.tokens.STATISTICS`."""
        some: dict[str, Callable[[], object]] = {"cls": lambda: self.tower.n_prefix}
        some |= {"kept_before_tower": lambda: self.tower.row, "kept_in_tower": lambda: self.tower_layers}
        some |= dict.fromkeys(("tower_features", "late_features"), lambda: tokenwise_projector(self))
        some |= {name: lambda name=name: self.why_not(name) is None for name in ("text_attention", "shrunk")}
        return Offered(some) | {"vision_attention", "early_attention", "pixels", "colors", "grid"}

    def why_not(self, statistic: str) -> str | None:
        """Why a statistic is not available, if there is more to say."""
        if statistic == "shrunk":
            return self.unshrunk or (WINDOWED if self.decoder.layers.patterned else None)
        return {"frames": self.splits_videos, "text_attention": unreadable_attention(self.layers)}.get(statistic)

    @property
    def tower_layers(self) -> BatchLayers | RowLayers | None:
        """The encoder layers between which patches may be dropped; None if they may not."""
        return None

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        """The tiles in a call of a vision tower, one by one. Raises PruningError for unknown names of the pixels."""
        return tiles_in(arguments, type(self).__name__)

    def by_image(self, statistic: str, tiles: list[Any], layouts: Sequence[Layout]) -> list[Any]:
        """Reorder a statistic of one call's tiles from the order in which the towers got them to that of their images,
        with all tiles of an image in one size. Called only if an image has several tiles."""
        return tiles

    def image_pixels(self, modality: Modality, arguments: Mapping[str, Any], layouts: list[Layout]) -> list[Tensor]:
        """The pixels of every image, from the arguments of its encoding function, for models without `vision_towers`,
        from which pixels are read otherwise."""
        raise NotImplementedError(f"{type(self).__name__} has no vision_towers: define image_pixels.")

    def consumed_layer(self, n_layers: int) -> int:
        """The encoder layer whose output the projector gets, of `n_layers`."""
        return n_layers - 1

    def encoder_layer(self, layer: int | None) -> int:
        """The index of the encoder layer that a strategy's `layer` refers to; None is the layer whose output the
        projector gets. Raises UnsupportedError for a layer that does not exist or cannot be read."""
        n_layers = len(self.tower.layers(self.vision_tower))
        layer = self.consumed_layer(n_layers) if layer is None else layer
        if not -n_layers <= layer < n_layers:
            raise UnsupportedError(
                f"layer={layer} is not in the vision tower: write 0 to {n_layers - 1}, or {-n_layers} to -1."
            )
        return layer

    def capture_points(self, layer: int | None) -> list[CapturePoints]:
        """The modules that expose an `encoder_layer`'s attention, for each of `vision_towers`. Raises as it does."""
        number = self.encoder_layer(layer)
        return [self.tower.capture_points(self.tower.layers(tower)[number]) for tower in self.vision_towers]

    def tile_heads(self, call: Mapping[str, Any]) -> QueryKey:
        """Queries and keys of every tile in a call of a vision tower, as its attention multiplies them.

        `call` holds the outputs of the capture points by name, the arguments of the attention under "attention", its
        module under "attention_module", and the arguments of the tower under "tower".
        """
        config = self.vision_tower.config
        if self.tower.heads is not None:
            return self.tower.heads(call, config)
        n_heads = config.num_attention_heads
        return list(split_heads(call["queries"], n_heads)), list(split_heads(call["keys"], n_heads))


class ModelAdapter(Vision, Inputs):
    """Answers these questions for one loaded model. The constructor raises UnsupportedError if it cannot.

    A family must define `layouts`. It may override any of these; the defaults fit models whose base model scatters
    visual features over placeholder tokens and calls its language model with inputs_embeds, attention_mask,
    position_ids and a cache, as the LLaVA family does:

        Parts   core, language_model, layers, vision_tower, vision_towers, resampler, describe_tower, only_before
        Inputs  takes_video or modalities, visual_mask, image_starts, encoded, sequence_arguments,
                prune_arguments, inner_features with prune_inner_features, late_features with visual_features,
                merge_late and first_stage, noncausal, check_length, unprunable
        Vision  layouts, splits_videos, offers, tower_layers, tokenwise, encoder_layer or consumed_layer,
                capture_points, tile_heads, tile_pixels, by_image, image_pixels, why_not, unshrunk with shrink
    """

    #: The first tested version of transformers that the adapter works with.
    since: tuple[int, int] = (5, 4)

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.config = model.config
        self.tower = self.known_tower()
        self.decoder = Decoder.of(self.config.get_text_config(), self.noncausal, self.language_model, self.layers)

    @property
    def frames_offered(self) -> frozenset[str]:
        """{"frames"} if the model takes videos whose frames are in one layout."""
        joined = any(modality.name == "video" for modality in self.modalities) and self.splits_videos is None
        return frozenset({"frames"} if joined else ())

    @property
    def offers(self) -> Set[str]:
        return super().offers | self.frames_offered
