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
    replaces: the architecture that its checkpoints' config names, which vLLM serves unpruned.
    model_type: that of the checkpoints' config.
    saved_as: the name that transformers writes into the config instead, if different.
    must_be_named: whether it serves only checkpoints that name the replaced architecture, because another family shares
        the type.
    mrope: whether position IDs have three components (M-RoPE).
    own_sections: whether vLLM's model knows the sections of M-RoPE, so that config.json need not name them.
    reads_position_ids: whether the language model reads position IDs; if not, vLLM's must count tokens, because some
        models use them as places in the KV cache.
    vision_chunks: whether vLLM treats images and chunks of videos as one modality.
    takes_images: whether vLLM takes images, rather than only videos.
    has_markers: whether there is text between the visual tokens of an image, which the language model embeds.
    needs_pixels: whether the features of an image do not say where in the image they belong.
    gridless: whether visual tokens have no rows and columns.
    padded: whether images are padded, so that their pixels do not divide into the patches of the tower.
    towerless: whether visual tokens are projections of pixels, without a vision tower.
    drops_patches: whether the tower can encode only some of the patches, for strategies that prune before it.
    joins_ranks: whether attention can be read when tensor parallel ranks encode different images.
    leaves_videos: whether vLLM may prune its videos, which tokenprune does not prune.
    first_release: the first vLLM release that has it, such as "0.33"; None if all supported ones do.
    last_release: the same for the last one.
    """

    name: str
    home: str
    replaces: str
    model_type: str
    saved_as: str | None = None
    must_be_named: bool = False
    mrope: bool = False
    own_sections: bool = False
    reads_position_ids: bool = True
    vision_chunks: bool = False
    takes_images: bool = True
    has_markers: bool = False
    needs_pixels: bool = False
    gridless: bool = False
    padded: bool = False
    towerless: bool = False
    drops_patches: bool = False
    joins_ranks: bool = False
    leaves_videos: bool = False
    first_release: str | None = None
    last_release: str | None = None

    def items(self, images: Sequence[Any]) -> dict[str, list[Any]]:
        """The images of a prompt, as vLLM's `LLM.generate` takes them."""
        if self.vision_chunks:
            return {"vision_chunk": [{"type": "image", "image": image, "uuid": None} for image in images]}
        return {"image": list(images)}


def by_name(*architectures: Architecture) -> dict[str, Architecture]:
    """Architectures by name. Raises ValueError if two share a name or a model: the later one would hide the other."""
    found: dict[str, Architecture] = {}
    taken: set[str] = set()
    for one in architectures:
        names = {one.name, one.replaces, one.saved_as or one.replaces}
        if again := sorted(names & taken):
            raise ValueError(
                f"tokenprune/serving/vllm/architectures has two architectures named {again[0]}. Rename or delete one."
            )
        taken |= names
        found[one.name] = one
    return found
