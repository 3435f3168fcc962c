"""The record of a model: everything that the plug-in knows of it outside of its classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PREFIX = "TokenPrune"


@dataclass(frozen=True)
class Architecture:
    """An architecture that the plug-in registers. Tables, pages and refusals are derived from these.

    name: the name in `--hf-overrides '{"architectures": [...]}'`.
    model_type: that of the checkpoints' config.
    home: the module in `models`, and the class if it is not `PrunedLlava` for `TokenPruneLlava`: `llava:PrunedOther`.
    replaces: the architecture that its checkpoints' config names, which vLLM serves unpruned; by default
        `LlavaForConditionalGeneration` for `TokenPruneLlava`.
    saved_as: the name that transformers writes into the config instead, if different.
    must_be_named: whether it serves only checkpoints that name the replaced architecture, because another family shares
        the type.

    Its checkpoints:

    title: the model's name in the table of served models, for which such a name may stand for the records after it,
        too; those have none.
    published: checkpoints as their authors publish them. Errors name the first.
    names: patterns at the start of published names that do not contain the type.
    other_names: the same for names that only look as if they belonged to this model.
    converted: the type that checkpoints have once they are converted to transformers' format, which vLLM does not read.
    like: for a type that only vLLM reads: a type of transformers' with the same kind of vision tower.
    converted_name, conversion: for a type with two formats: the architecture that config.json names in transformers'
        format, which vLLM does not read, and a checkpoint in it.
    only_transformers_write: a setting of the language model that only transformers writes into the config, where vLLM
        reads others.

    Its config:

    text_part: the part that describes the language model, if transformers has no class for the type, or a different one
        than vLLM uses; "" if the config itself does, with Qwen2's names.
    vision_parts: the parts that then describe its vision.
    tower: where in `adapters` the vision tower is described, as `families.kimi:TOWER`, or its name in `TOWERS`; None if
        the config says which tower it is.
    tower_type: the type of the config that has the tower, if different: vLLM gives it another type, or it is a part.
    described: returns a config with its vision tower under transformers' names.
    misfit: returns why a config of this type cannot be served, or None.
    own_layers: kinds of decoder layers of this model only, by the type of the language model's config: an index picks
        which remaining tokens they attend to, and some use position IDs as places in the KV cache; or a checkpoint's
        own names for layers that are served.

    How it runs:

    mrope: whether position IDs have three components (M-RoPE).
    own_sections: whether vLLM's model knows the sections of M-RoPE, so that config.json need not name them.
    reads_position_ids: whether the language model reads position IDs; if not, vLLM's must count tokens, because some
        models use them as places in the KV cache.
    vision_chunks: whether vLLM treats images and chunks of videos as one modality.
    takes_images: whether vLLM takes images, rather than only videos.
    prunes_videos: whether its videos are pruned, too.
    has_markers: whether there is text between the visual tokens of an image, which the language model embeds.
    needs_pixels: whether the features of an image do not say where in the image they belong.
    gridless: whether visual tokens have no rows and columns.
    padded: whether images are padded, so that their pixels do not divide into the patches of the tower.
    towerless: whether visual tokens are projections of pixels, without a vision tower.
    drops_patches: whether the tower can encode only some of the patches, for strategies that prune before it.
    shrinks: whether the tower can encode smaller versions of images.
    takes_adapters: whether vLLM is known to apply LoRA adapters of its language model.
    joins_ranks: whether attention can be read when tensor parallel ranks encode different images.
    splits_images: whether ranks encode different images if they cannot share the vision tower's heads equally.
    leaves_videos: whether vLLM may prune its videos, which tokenprune does not prune.
    refuses: engine options that only this model and its like refuse, as `startup/engine_options.py` calls them.
    tables: vLLM's tables that list the model by name, as `name_tables.py` calls them.
    tokenizer_mode: vLLM's own mode for the prompts of a model without a chat template.
    headed: the architecture that vLLM uses instead for a checkpoint with a head that scores answers.
    first_release: the first vLLM release that has it, such as "0.33"; None if all supported ones do.
    last_release: the same for the last one.
    """

    name: str
    model_type: str
    home: str
    replaces: str = ""
    saved_as: str | None = None
    must_be_named: bool = False

    title: str = ""
    published: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()
    converted: str | None = None
    like: str | None = None
    converted_name: str = ""
    conversion: str = ""
    only_transformers_write: str | None = None

    text_part: str | None = None
    vision_parts: tuple[str, ...] = ("vision_config",)
    tower: str | None = None
    tower_type: str | None = None
    described: Callable[[Any], Any] | None = None
    misfit: Callable[[Any], str | None] | None = None
    own_layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    mrope: bool = False
    own_sections: bool = False
    reads_position_ids: bool = True
    vision_chunks: bool = False
    takes_images: bool = True
    prunes_videos: bool = False
    has_markers: bool = False
    needs_pixels: bool = False
    gridless: bool = False
    padded: bool = False
    towerless: bool = False
    drops_patches: bool = False
    shrinks: bool = False
    takes_adapters: bool = True
    joins_ranks: bool = False
    splits_images: bool = False
    leaves_videos: bool = False
    refuses: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    tokenizer_mode: str | None = None
    headed: str | None = None
    first_release: str | None = None
    last_release: str | None = None

    def __post_init__(self) -> None:
        short = self.name.removeprefix(PREFIX)
        if ":" not in self.home:
            object.__setattr__(self, "home", f"{self.home}:Pruned{short}")
        if not self.replaces:
            object.__setattr__(self, "replaces", f"{short}ForConditionalGeneration")

    @property
    def joins_frames(self) -> bool:
        """Whether the frames of a video can be pruned together: they show the same places, answers were compared with
        transformers', and no embedding depends on the text between frames."""
        known = self.text_part is None and "_NGRAM_LAYER_FIELDS" not in self.tables
        return self.prunes_videos and known and not self.vision_chunks

    def items(self, images: Sequence[Any]) -> dict[str, list[Any]]:
        """The images of a prompt, as vLLM's `LLM.generate` takes them."""
        if self.vision_chunks:
            return {"vision_chunk": [{"type": "image", "image": image, "uuid": None} for image in images]}
        return {"image": list(images)}


def by_name(architectures: Iterable[Architecture]) -> dict[str, Architecture]:
    """Architectures by name, first those that must be named. Raises ValueError if two share a name or a model: the
    later one would hide the other."""
    named: dict[str, Architecture] = {}
    taken: set[str] = set()
    for record in sorted(architectures, key=lambda record: not record.must_be_named):
        names = {record.name, record.replaces, record.saved_as or record.replaces}
        if again := sorted(names & taken):
            raise ValueError(
                f"tokenprune/serving/vllm/architectures has two architectures named {again[0]}. Rename or delete one."
            )
        taken |= names
        named[record.name] = record
    return named
