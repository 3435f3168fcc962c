"""What a model family must answer, and the list of those that do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from tokenprune.errors import PruningError, UnsupportedError
from tokenprune.sequence import Packing
from tokenprune.tokens import Grid3
from tokenprune.vision import RECORD_ATTRIBUTE, AttentionShape, EncodedImage

#: The transformers versions that the tests pass on: from, and below.
TRANSFORMERS_RANGE = ((5, 4), (6, 0))


class ModelAdapter(ABC):
    """Answers for one loaded model. The constructor raises UnsupportedError for a model that it cannot answer for.

    The defaults here hold for models that call their language model with inputs_embeds, attention_mask, position_ids
    and a cache, as all of the LLaVA family do.
    """

    #: Arguments of the language model, beyond the three above, that run along the sequence: (batch, length, ...).
    sequence_arguments: tuple[str, ...] = ()
    #: What the cache is called, in arguments and outputs, over the supported versions.
    cache_names: tuple[str, ...] = ("cache", "past_key_values")

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    # 1. Where are the parts?

    @property
    @abstractmethod
    def core(self) -> nn.Module:
        """The base model, whose forward puts the visual features in and calls the language model."""

    @property
    @abstractmethod
    def language_model(self) -> nn.Module:
        """The decoder, without the head."""

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """The decoder layers."""

    @property
    @abstractmethod
    def vision_tower(self) -> nn.Module:
        """The module that is called once with the pictures."""

    # 2. Which positions are visual?

    @abstractmethod
    def visual_mask(self, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch length"] | None:
        """Which new columns of a call of `core` are visual tokens; None if the call brings no pictures."""

    # 3. Which pictures did the vision tower get, and what grid has each?

    @abstractmethod
    def pixels(self, kwargs: Mapping[str, Any]) -> Float[Tensor, "images channels height width"]:
        """The pictures in a call of `vision_tower`."""

    @abstractmethod
    def grids(self, pixels: Float[Tensor, "images channels height width"]) -> list[Grid3]:
        """(t, h, w) of every picture's visual tokens."""

    # 4. Which statistics are there, and how are they read?

    @property
    @abstractmethod
    def offers(self) -> frozenset[str]:
        """Names from `tokenprune.tokens.STATISTICS`."""

    @property
    @abstractmethod
    def attention_shape(self) -> AttentionShape:
        """How to read the projections of the vision tower's attention."""

    @abstractmethod
    def attention_projections(self, layer: int | None) -> tuple[nn.Module, nn.Module]:
        """The query and key projections of one encoder layer; None is the layer whose output the projector gets.

        Raises UnsupportedError for a layer that does not exist.
        """

    # 5. How do pictures reach a call that was encoded beforehand?

    def remember(self, output: Any, images: list[EncodedImage]) -> None:
        """Ties the record of the pictures to the vision tower's output."""
        setattr(output, RECORD_ATTRIBUTE, images)

    @abstractmethod
    def recall(self, kwargs: Mapping[str, Any]) -> list[EncodedImage]:
        """The pictures, one per use, that a call of `core` gets already encoded; none if they come as pixels."""

    # 6. Which other tensors must shrink?

    def shorten(self, kwargs: dict[str, Any], packing: Packing, n_slots: int) -> None:
        """Shortens the language model's remaining arguments in place. `n_slots` of the cache are taken already."""
        for name in self.sequence_arguments:
            if kwargs.get(name) is not None:
                kwargs[name] = packing.take(kwargs[name])

    # 7. What cannot be pruned?

    def unprunable(self, kwargs: Mapping[str, Any]) -> list[str]:
        """Arguments of a call of the model that only fit the unpruned sequence."""
        names = ["labels"] if kwargs.get("labels") is not None else []
        return names + (["logits_to_keep"] if isinstance(kwargs.get("logits_to_keep"), Tensor) else [])

    # Answered once for all.

    @property
    def description(self) -> str:
        """The model in a few words, for error messages."""
        return type(self.model).__name__

    def cache(self, where: Any) -> Any:
        """The cache in a call's arguments or in an output; None if there is none."""
        if not isinstance(where, Mapping):
            return None
        return next((where[name] for name in self.cache_names if where.get(name) is not None), None)

    def n_new(self, kwargs: Mapping[str, Any]) -> int:
        """How many columns a call of `core` brings."""
        new = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
        return new.shape[1]

    def attention_mask(self, kwargs: Mapping[str, Any]) -> Tensor | None:
        """The attention mask of a call of `core` or of the language model. Raises PruningError for a kind of mask
        that cannot be shortened."""
        mask = kwargs.get("attention_mask")
        if isinstance(mask, Mapping):  # one per kind of layer; patch() lets only full attention through
            mask = mask["full_attention"]
        if mask is not None and not isinstance(mask, Tensor):
            raise PruningError(
                f"an attention mask of type {type(mask).__name__} cannot be pruned. Load the model with "
                f'attn_implementation="sdpa", or generate without a static cache.'
            )
        return mask


ADAPTERS: dict[str, type[ModelAdapter]] = {}

Adapter = TypeVar("Adapter", bound=type[ModelAdapter])


def register_adapter(*class_names: str) -> Callable[[Adapter], Adapter]:
    """Registers a ModelAdapter for transformers classes, by their names; works from any package."""

    def register(adapter: Adapter) -> Adapter:
        for name in class_names:
            ADAPTERS[name] = adapter
        return adapter

    return register


def adapter_for(model: object) -> ModelAdapter:
    """The adapter of a loaded model, found by its class or one that it inherits from.

    Raises UnsupportedError for anything else, and outside the supported transformers versions.
    """
    names = [cls.__name__ for cls in type(model).__mro__]
    adapter = next((ADAPTERS[name] for name in names if name in ADAPTERS), None)
    if adapter is None or not isinstance(model, nn.Module):
        what = f"a {type(model).__name__}" if isinstance(model, nn.Module) else f"{model!r}, which is no nn.Module"
        raise UnsupportedError(
            f"no model adapter for {what}. Adapters: {', '.join(sorted(ADAPTERS))}. Pass the Hugging Face model "
            f"itself, not a wrapper around it; to add an adapter see adapters/README.md."
        )
    check_transformers()
    return adapter(model)


def check_transformers() -> None:
    """Raises UnsupportedError unless the installed transformers is in the supported range."""
    import transformers

    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    oldest, below = TRANSFORMERS_RANGE
    if not oldest <= version < below:
        wanted = f">={'.'.join(map(str, oldest))},<{'.'.join(map(str, below))}"
        raise UnsupportedError(
            f"transformers {transformers.__version__} is outside the range that tokenprune is tested with. Type: "
            f'pip install "transformers{wanted}"'
        )
