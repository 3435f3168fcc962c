"""What the plug-in must know of a model to prune it inside vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """An architecture that the plug-in registers.

    name: the name in `--hf-overrides '{"architectures": [...]}'`.
    home: the module in `models` and the class, `llava:PrunedLlava`.
    replaces: what its checkpoints' config names, which vLLM serves unpruned.
    model_type: that of the checkpoints' config.
    saved_as: the name that transformers writes into the config, if that is another.
    named: whether it only serves checkpoints that name what it replaces, because another family has the same type.
    multidimensional: whether position IDs have three components (M-RoPE).
    numbered: whether the language model reads position IDs; if not, vLLM's may count tokens only, which some models
        take for places in the KV cache.
    chunks: whether vLLM takes images and chunks of videos as one modality.
    images: whether vLLM takes images, and not videos only.
    marked: whether there is text between the visual tokens of an image, whose embeddings are the language model's.
    needs_pixels: whether the features of an image do not say where in the image they belong.
    padded: whether images are padded, so that their pixels do not divide into the patches of the tower.
    towerless: whether visual tokens are projections of pixels, without a vision tower.
    drops_patches: whether the tower can encode some of the patches only, for strategies that prune before it.
    joins_ranks: whether the attention of images that tensor parallel ranks encode apart is put together.
    """

    name: str
    home: str
    replaces: str
    model_type: str
    saved_as: str | None = None
    named: bool = False
    multidimensional: bool = False
    numbered: bool = True
    chunks: bool = False
    images: bool = True
    marked: bool = False
    needs_pixels: bool = False
    padded: bool = False
    towerless: bool = False
    drops_patches: bool = False
    joins_ranks: bool = False

    def items(self, images: Sequence[Any]) -> dict[str, list[Any]]:
        """The images of a prompt, as vLLM's `LLM.generate` takes them."""
        if self.chunks:
            return {"vision_chunk": [{"type": "image", "image": image, "uuid": None} for image in images]}
        return {"image": list(images)}


def by_name(*architectures: Architecture) -> dict[str, Architecture]:
    """Architectures by their names. Raises ValueError for two with one name, or for one model: the later one would hide
    the other."""
    found: dict[str, Architecture] = {}
    taken: set[str] = set()
    for one in architectures:
        names = {one.name, one.replaces, one.saved_as or one.replaces}
        if again := sorted(names & taken):
            raise ValueError(f"architectures.py has two architectures named {again[0]}. Rename or delete one.")
        taken |= names
        found[one.name] = one
    return found
