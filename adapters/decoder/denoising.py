"""Additional questions to adapters of models that denoise, in which a second stack of layers reads the language model's
cache at every step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

#: The attribute of embeddings that holds their PolicyPrefix.
PREFIX_ATTRIBUTE = "tokenprune_prefix"


@dataclass(eq=False)
class PolicyPrefix:
    """What a policy's embeddings consist of. The engine attaches the records of the images to it.

    visual: which columns are visual tokens, by modality.
    """

    visual: Mapping[str, Bool[Tensor, "batch length"]]


class Policy(ABC):
    """A robot policy: its base model reads images and an instruction that were embedded before, and an action expert
    denoises actions. Each layer of the expert reads and extends the cache of the language model's layer with the same
    number; what it appends is cropped after every step."""

    @property
    @abstractmethod
    def expert(self) -> nn.Module:
        """The stack that is called once per step, like a language model. Its `layers` correspond to the cache's."""

    @property
    @abstractmethod
    def embedding_function(self) -> tuple[nn.Module, str]:
        """The module, and its method, by name, that encodes the images and returns the base model's embeddings."""

    @abstractmethod
    def embedded(self, call: Mapping[str, Any]) -> tuple[Bool[Tensor, "batch length"], Bool[Tensor, " images"]]:
        """Which columns are visual tokens, and which of the encoded images are in the prompt, from the arguments of a
        call of the embedding function."""

    @abstractmethod
    def expert_outputs(self, layer: int) -> Sequence[nn.Module]:
        """The modules of a layer of the expert whose outputs are added to its hidden states, gated or not: attention
        and MLP. The gate is not part of them; it is computed in every step."""


class BlockDiffusion(ABC):
    """A model that answers in canvases, blocks of text that its denoiser refines from noise."""

    @property
    @abstractmethod
    def denoiser(self) -> nn.Module:
        """The stack that is called once per step, with the cache, and with `decoder_position_ids` and
        `decoder_attention_mask` over the cache's tokens and the canvas. Its `layers` append their own keys to those of
        the cache's layers, and leave the cache as it is."""

    @abstractmethod
    def canvas_attention(self, layer: int) -> nn.Module:
        """The attention of a layer of the denoiser, which is called with hidden states, position embeddings, mask and
        cache."""

    @abstractmethod
    def canvas_heads(
        self, layer: int, call: Mapping[str, Any]
    ) -> tuple[Float[Tensor, "batch heads canvas width"], Float[Tensor, "batch key_heads canvas width"]]:
        """The canvas's scaled queries and its keys in a `canvas_attention`, from the arguments of a call of that."""
