"""Common parts of the random tiny models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from random import Random
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import LlavaForConditionalGeneration

#: The argument that holds the KV cache, which transformers renamed in 5.2x.
CACHE = "cache" if "cache" in signature(LlavaForConditionalGeneration.forward).parameters else "past_key_values"
ROLES = ("pad", "bos", "eos", "image", "video", "start", "end", "line", "overview")


@dataclass(frozen=True)
class Item:
    """One image or video of a prompt; `size` is in the unit that its family uses."""

    modality: str
    size: tuple[int, ...]


class Family(ABC):
    """One model class with randomly drawn sizes.

    model: the model that the fuzz patches. twin: its copy with eager attention, never patched.
    special: token IDs by role. text: all other token IDs.
    """

    class_name: str
    #: Whether images must precede all text of a row.
    images_first = False
    #: Whether `generate` accepts further images after the first turn.
    chats = True
    #: Whether position IDs have three components.
    mrope = False

    def __init__(self, rng: Random) -> None:
        self.vocabulary = rng.randint(48, 120)
        ids = rng.sample(range(self.vocabulary), len(ROLES))
        self.special: dict[str, int] = dict(zip(ROLES, ids, strict=True))
        self.text = sorted(set(range(self.vocabulary)) - set(ids))
        self.attention = rng.choice(["sdpa", "eager"])
        self.heads = rng.choice([2, 4, 6])
        self.kv_heads = rng.choice([n for n in (1, 2, 3, 4, 6) if self.heads % n == 0])
        self.head_dim = rng.choice([8, 16])
        self.layers = rng.randint(2, 6)
        self.settings: dict[str, Any] = {}

    # The model.

    @abstractmethod
    def config(self, rng: Random) -> Any:
        """Return the configuration, with every size drawn."""

    def build(self, rng: Random) -> None:
        config = self.config(rng)
        config._attn_implementation = self.attention
        generator = torch.Generator().manual_seed(rng.randrange(2**31))
        model: Any = getattr(transformers, self.class_name)(config).eval()
        spread = rng.uniform(0.08, 0.15)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=spread, generator=generator)
                else:  # norms and biases, which are not exactly one and zero after training
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = self.special["pad"]
        model.generation_config.suppress_tokens = sorted(self.special.values())
        self.model, self.twin = model, deepcopy(model)
        self.twin.set_attn_implementation("eager")

    def decoder(self, **settings: Any) -> dict[str, Any]:
        """Return the settings that all language models share."""
        return {
            "hidden_size": self.heads * self.head_dim,
            "intermediate_size": 40,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 1024,
            "pad_token_id": self.special["pad"],
            "bos_token_id": self.special["bos"],
            "eos_token_id": self.special["eos"],
            **settings,
        }

    def backbone(self, rng: Random) -> Any:
        """Return the configuration of a random kind of language model."""
        kind = rng.choice(["Llama", "Llama", "Qwen2", "Qwen3", "Mistral", "Olmo2", "Granite"])
        extra: dict[str, Any] = {}
        if kind in ("Qwen3", "Mistral"):
            extra["head_dim"] = self.head_dim
        if kind == "Mistral":
            extra["sliding_window"] = rng.choice([None, None, None, rng.randint(6, 60)])
        if kind == "Granite":
            extra["attention_multiplier"] = self.head_dim**-0.5
            extra["residual_multiplier"] = 0.7
        self.settings |= {"backbone": kind, **extra}
        return getattr(transformers, f"{kind}Config")(**self.decoder(**extra))

    def tower(self, rng: Random, side: int, patch: int, layers: tuple[int, int] = (2, 4)) -> dict[str, Any]:
        """Return the settings of a vision tower for square images of `side` patches a side."""
        heads = rng.choice([2, 4])
        return {
            "hidden_size": heads * 8,
            "intermediate_size": 24,
            "num_hidden_layers": rng.randint(*layers),
            "num_attention_heads": heads,
            "image_size": side * patch,
            "patch_size": patch,
        }

    def tokens(self) -> dict[str, Any]:
        return {"image_token_index": self.special["image"]}

    # Prompts.

    @abstractmethod
    def item(self, rng: Random) -> Item:
        """Return an image or video of a random size."""

    @abstractmethod
    def blocks(self, items: list[Item]) -> list[list[int]]:
        """Return the token IDs of each image and video of a row: placeholders, and markers around and between them."""

    @abstractmethod
    def tensors(self, rows: list[list[Item]], generator: torch.Generator) -> dict[str, Any]:
        """Return the arguments with the images and videos of all rows."""

    def types(self, ids: Tensor) -> dict[str, Tensor]:
        """Return the arguments with one entry per prompt token, besides the IDs."""
        return {}

    def position_ids(self, ids: Tensor, real: Tensor, before: Tensor) -> Tensor:
        """Return position IDs for new columns after those `before`, as a caller may pass them: padding has none of its
        own."""
        last = before.amax(-1, keepdim=True) if before.shape[-1] else torch.full((len(ids), 1), 1)
        return last + real.cumsum(1)

    def placeholders(self) -> dict[str, int]:
        return {name: self.special[name] for name in ("image", "video")}


def of(rows: list[list[Item]], modality: str) -> list[Item]:
    """Return all images or all videos of a batch, in reading order."""
    return [item for row in rows for item in row if item.modality == modality]


def noise(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)
