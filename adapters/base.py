"""What a model family must answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tokenprune.adapters.decoder.attention import text_capture_points, text_heads
from tokenprune.adapters.decoder.config import Decoder
from tokenprune.adapters.towers.layers import TowerLayers
from tokenprune.adapters.towers.registry import QueryKey, Tower, tower_of
from tokenprune.errors import PruningError, UnsupportedError
from tokenprune.sequence.masks import Mask
from tokenprune.sequence.packing import Packing
from tokenprune.tokens.encoded import RECORD_ATTRIBUTE, CapturePoints, EncodedImage, Modality
from tokenprune.tokens.layout import Layout


class ModelAdapter(ABC):
    """Answers for one loaded model. The constructor raises UnsupportedError for a model that it cannot answer for.

    The defaults here hold for models whose base model scatters visual features over placeholder tokens and calls its
    language model with inputs_embeds, attention_mask, position_ids and a cache, as all of the LLaVA family do.
    """

    #: Arguments of the language model, beyond the three above, that run along the sequence: (batch, length, ...).
    sequence_arguments: tuple[str, ...] = ()
    #: Whether the base model makes masks for its language model that are not causal.
    patterns: bool = False
    #: The method of the language model, if there is one, that adds features to visual tokens between decoder layers.
    inner_features: str | None = None
    #: What the cache is called, in arguments and outputs, over the supported versions.
    cache_names: tuple[str, ...] = ("cache", "past_key_values")

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.config: Any = model.config
        if self._vision_tower is None:
            raise UnsupportedError(
                f"{type(model).__name__} without a vision tower has no visual tokens to prune. Load the whole model, "
                f"for instance with {type(model).__name__}.from_pretrained(...)."
            )
        self.tower = self.find_tower()
        self.decoder = Decoder.of(self.config.get_text_config(), self.patterns)

    # 1. Where are the parts?

    @property
    def core(self) -> Any:
        """The base model, whose forward puts the visual features in and calls the language model."""
        return getattr(self.model, "model", None)

    @property
    def language_model(self) -> nn.Module:
        """The decoder, without the head."""
        return self.core.language_model

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers."""
        return cast(Any, self.language_model).layers

    @property
    def vision_tower(self) -> Any:
        """The module that is called with the pictures."""
        return self._vision_tower

    @property
    def vision_towers(self) -> tuple[Any, ...]:
        """Every module that is called with pictures; several are of one kind."""
        return (self.vision_tower,)

    @property
    def _vision_tower(self) -> Any:
        return getattr(self.core, "vision_tower", None)

    def find_tower(self) -> Tower:
        """How the vision tower is read. Raises UnsupportedError for a kind that the family cannot be read with."""
        return tower_of(self.vision_tower.config.model_type, type(self.model).__name__)

    # 2. Which kinds of pictures come, and where do they go?

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return (Modality("image", "get_image_features", "pixel_values", self.config.image_token_id),)

    def visual_mask(self, modality: Modality, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch length"] | None:
        """Which new columns of a call of `core` are visual tokens; None if the call brings no such pictures."""
        if kwargs.get(modality.pixels) is None and self.encoded(modality, kwargs) is None:
            return None
        if kwargs.get("input_ids") is not None:
            return kwargs["input_ids"] == modality.token_id
        embeds = kwargs["inputs_embeds"]
        embedding = self.core.get_input_embeddings()
        return (embeds == embedding(torch.tensor(modality.token_id, device=embeds.device))).all(-1)

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"] | None:
        """At which of the `visual` columns of a call of `core` a picture begins, for models whose function is given
        tiles and not told which belong together; None if every layout is a picture."""
        return None

    # 3. What layout has each picture?

    @abstractmethod
    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        """The layout of every picture that a call of the modality's function with these arguments encoded."""

    # 4. Which statistics are there, and how are they read?

    @property
    def offers(self) -> frozenset[str]:
        """Names from `tokenprune.tokens.visual.STATISTICS`."""
        everywhere = {"vision_attention", "text_attention", "pixels", "colors"}
        cls, left = {"cls"} if self.n_prefix else set(), {"left_in_tower"} if self.tower_layers else set()
        return frozenset(everywhere | cls | left)

    @property
    def tower_layers(self) -> TowerLayers | None:
        """The encoder layers between which patches may be dropped; None where they may not."""
        return None

    @property
    def n_prefix(self) -> int:
        """How many tokens of the vision tower come before the patches."""
        return self.tower.n_prefix

    @property
    def attention_scale(self) -> float:
        """What the vision tower multiplies q . k by."""
        return self.tower.head_width(self.vision_tower.config) ** -0.5

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        """The tiles in a call of `vision_tower`, one by one."""
        return list(arguments[next(name for name in ("pixel_values", "hidden_states") if name in arguments)])

    def colors(self, pixels: Float[Tensor, "tiles 3 height width"]) -> Float[Tensor, "tiles 3 height width"]:
        """Tiles in RGB, 0 to 1, from what `tile_pixels` gives: undoes the normalisation that towers of this kind are
        trained with. A processor with another one gives other colours."""
        mean, std = (torch.tensor(part, device=pixels.device)[:, None, None] for part in self.tower.normalisation)
        return (pixels.float() * std + mean).clamp(0, 1)

    def capture_points(self, layer: int | None) -> CapturePoints:
        """The modules that show one encoder layer's attention; None is the layer whose output the projector gets.

        Raises UnsupportedError for a layer that does not exist.
        """
        return self.tower_capture_points(self.vision_tower, layer)

    def all_capture_points(self, layer: int | None) -> list[CapturePoints]:
        """Those of all `vision_towers`."""
        return [self.capture_points(layer)]

    def tower_capture_points(self, tower: Any, layer: int | None) -> CapturePoints:
        """Those of one of `vision_towers`."""
        layers = self.tower.layers(tower)
        if layer is None:
            layer = self.consumed_layer(len(layers))
        if not -len(layers) <= layer < len(layers):
            raise UnsupportedError(
                f"layer={layer} is not in the vision tower, whose layers are 0..{len(layers) - 1} (or -1 for the last)."
            )
        return self.tower.taps(layers[layer])

    def consumed_layer(self, n_layers: int) -> int:
        """The encoder layer whose output the projector gets."""
        return n_layers - 1

    def tile_heads(self, call: Mapping[str, Any]) -> QueryKey:
        """Queries and keys of every tile in a call of `vision_tower`, as its attention multiplies them.

        `call` has what the taps returned by their names, the arguments of the attention under "attention" and those of
        the tower under "tower".
        """
        return self.tower.heads(call, self.vision_tower.config)

    def text_capture_points(self, layer: int) -> CapturePoints:
        """The modules that show one decoder layer's attention."""
        return text_capture_points(self.layers[layer])

    def text_heads(self, call: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Queries and keys, (batch, heads, tokens, width), with rotary embeddings, of a captured call."""
        return text_heads(call)

    def text_attention_scale(self, layer: int) -> float:
        """What a decoder layer multiplies q . k by."""
        return cast(Any, self.layers[layer]).self_attn.scaling

    # 5. How do pictures reach a call that was encoded beforehand?

    def encoded(self, modality: Modality, kwargs: Mapping[str, Any]) -> Any:
        """The pictures that `generate` encodes before it calls the model (transformers 5.2x on)."""
        return (kwargs.get("mm_encoder_outputs") or {}).get(modality.name)

    def remember(self, output: Any, images: list[EncodedImage]) -> None:
        """Ties the record of the pictures to the output of the function that encoded them."""
        setattr(output, RECORD_ATTRIBUTE, images)

    def recall(
        self, modality: Modality, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> list[EncodedImage]:
        """The pictures, one per use, that a call of `core` gets already encoded, in reading order of the `visual`
        columns; none if they come as pixels."""
        output = self.encoded(modality, kwargs)
        if output is None:
            return []
        images: list[EncodedImage] | None = getattr(output, RECORD_ATTRIBUTE, None)
        if images is None:
            raise PruningError(
                "the pictures were encoded outside this patch, or cut into chunks, so nothing is known about their "
                "tokens. Pass pixel_values, or encode after patch(); in generate() leave prefill_chunk_size out."
            )
        return in_rows(images, visual.sum(1).tolist())

    # 6. Which other tensors must shrink?

    @property
    def loss_function(self) -> tuple[str, Callable[..., Any]]:
        """The attribute that holds a loss function of this instance only, and the function that it uses now. It is
        called with logits and labels, and what else the loss needs."""
        model: Any = self.model
        return "_loss_function", model.loss_function

    def prune_arguments(self, kwargs: dict[str, Any], packing: Packing, n_slots: int) -> None:
        """Shortens the language model's remaining arguments in place. `n_slots` of the cache are taken already."""
        for name in self.sequence_arguments:
            if kwargs.get(name) is not None:
                kwargs[name] = packing.gather_tokens(kwargs[name])

    def prune_inner_features(self, arguments: tuple[Any, ...], packing: Packing) -> tuple[Any, ...]:
        """The arguments of `inner_features`, hidden states excepted, for the columns that an in-LLM stage has left."""
        raise NotImplementedError

    # 7. What cannot be pruned?

    def unprunable(self, kwargs: Mapping[str, Any]) -> list[str]:
        """Arguments of a call of the model that only fit the unpruned sequence."""
        return ["logits_to_keep"] if isinstance(kwargs.get("logits_to_keep"), Tensor) else []

    @property
    def recomputes_hooks(self) -> bool:
        """Whether the backward pass runs decoder layers again with their hooks, as activation checkpointing did until
        it wrapped their `forward` instead of their call."""
        layer: Any = self.layers[0]
        checkpoints = layer.training and getattr(layer, "gradient_checkpointing", False)
        return checkpoints and type(layer).__call__ is not nn.Module.__call__

    # Answered once for all.

    @property
    def description(self) -> str:
        """The model in a few words, for error messages."""
        return f"{type(self.model).__name__} with a {self.vision_tower.config.model_type} tower"

    def cache(self, *places: Any) -> Any:
        """The cache in a call's arguments or in an output, the first of several; None if there is none."""
        # dict's own get: an output warns of the old name when it is asked for it.
        found = (dict.get(place, name) for place in places if isinstance(place, dict) for name in self.cache_names)
        return next((cache for cache in found if cache is not None), None)

    def n_new(self, kwargs: Mapping[str, Any]) -> int:
        """How many columns a call of `core` brings."""
        new = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
        return new.shape[1]

    def attention_mask(self, kwargs: Mapping[str, Any]) -> Mask:
        """The attention mask of a call of `core` or of the language model. Raises PruningError for a kind of mask
        that cannot be shortened."""
        mask = kwargs.get("attention_mask")
        patterns = list(mask.values()) if isinstance(mask, Mapping) else [mask]
        odd = next((pattern for pattern in patterns if pattern is not None and not isinstance(pattern, Tensor)), None)
        if odd is not None:
            raise PruningError(
                f"an attention mask of type {type(odd).__name__} cannot be pruned. Load the model with "
                f'attn_implementation="sdpa", or generate without a static cache.'
            )
        return mask


def in_rows(images: Sequence[EncodedImage], counts: Sequence[int]) -> list[EncodedImage]:
    """`images`, once per use, of rows with so many visual tokens each: `generate` repeats every row for its beams, one
    behind the other, and the features of the row's pictures with it."""
    times = max(1, sum(counts) // max(1, sum(image.n_visual for image in images)))
    waiting, used = deque(images), []
    for count in counts[::times]:
        row: list[EncodedImage] = []
        while waiting and sum(image.n_visual for image in row) < count:
            row.append(waiting.popleft())
        used += row * times
    return used + list(waiting)  # what does not fit is told when images and columns are compared
