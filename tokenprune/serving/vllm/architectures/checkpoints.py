"""Which of our architectures serves which checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from tokenprune.adapters.tested import read_tested
from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES, GENERIC
from tokenprune.serving.vllm.architectures.architecture import Architecture

#: Towers that vLLM implements, in families that may have others too.
NATIVE_TOWERS = ("clip_vision_model", "siglip_vision_model")
#: Types of checkpoints in their authors' format, which vLLM reads, and of their conversions to transformers' format,
#: which it does not read.
CONVERTED = {
    record.model_type: record.converted
    for record in ARCHITECTURES.values()
    if record.converted and sum(other.model_type == record.model_type for other in ARCHITECTURES.values()) == 1
}
#: Types that only vLLM reads, and a transformers type with the same kind of vision tower.
ONLY_VLLM = {record.model_type: record.like for record in ARCHITECTURES.values() if record.like}
#: Types of checkpoints in two formats, told apart by the architecture that config.json names.
TWO_FORMATS = {record.model_type: record for record in ARCHITECTURES.values() if record.conversion}
PATCH = "Patch it in transformers instead: tokenprune.patch(model, strategy)."


def architecture_of(config: Mapping[str, Any]) -> str:
    """Return the name of the architecture that serves a checkpoint, given its config.json. Raises UnsupportedError for
    a model that none serves, even if it shares its type with one that is served."""
    model_type, names = config.get("model_type"), config.get("architectures") or ()
    if model_type is None:
        raise UnsupportedError(
            'config.json has no "model_type", so it is not a model in the format of Hugging Face. Name one that is.'
        )
    formats = TWO_FORMATS.get(model_type)
    if formats is not None and formats.converted_name in names:
        raise _not_as_published(formats)
    _check_names(model_type, [name for name in names if name not in ARCHITECTURES])
    tower = (config.get("vision_config") or {}).get("model_type", NATIVE_TOWERS[0])
    for architecture in ARCHITECTURES.values():
        if architecture.must_be_named and not {architecture.replaces, architecture.name} & set(names):
            continue
        if architecture.model_type == model_type:
            if model_type == "llava" and tower not in NATIVE_TOWERS:
                return GENERIC
            return architecture.name
    for record in ARCHITECTURES.values():
        if model_type == record.converted:
            raise UnsupportedError(
                f"a model of type {model_type!r} is read by transformers only: vLLM takes it as it is published, with "
                f"the type {record.model_type!r} in config.json. Write the name of such a checkpoint, as "
                f"{record.published[0]} is one."
            )
        if model_type == record.tower_type and checkpoint_type(model_type) == record.model_type:
            raise UnsupportedError(
                f"a model of type {model_type!r} is a thinker alone: vLLM takes the whole model. Write its name, such "
                f"as {record.published[0]}."
            )
    raise _not_served(model_type)


def check_published(config: Mapping[str, Any]) -> None:
    """Raise UnsupportedError for a config.json written by transformers, if vLLM reads the model only as published."""
    for record in ARCHITECTURES.values():
        if record.model_type == config["model_type"] and record.only_transformers_write in (
            config.get("text_config") or {}
        ):
            raise _not_as_published(record)


def _not_served(model_type: str) -> UnsupportedError:
    similar = get_close_matches(model_type, {architecture.model_type for architecture in ARCHITECTURES.values()}, 1)
    hint = f" The most similar type that can is {similar[0]!r}." if similar else ""
    patched = f" {PATCH}" if any(tested.model_type == model_type for tested in read_tested().values()) else ""
    return UnsupportedError(
        f"a model of type {model_type!r} cannot be pruned inside vLLM.{hint} Serve it unpruned, with `vllm serve`."
        f"{patched} For the models that can be, type: tokenprune models"
    )


def _not_as_published(architecture: Architecture) -> UnsupportedError:
    return UnsupportedError(
        f"config.json of this {architecture.model_type!r} model is as transformers writes it, and vLLM reads such "
        f"models only as they are published. Write the published name, such as {architecture.published[0]}. {PATCH}"
    )


def architecture_of_loaded(config: Mapping[str, Any]) -> str:
    """The same for a model loaded by transformers, which may be only the thinker of a checkpoint."""
    model_type = config["model_type"]
    whole = checkpoint_type(model_type)
    return architecture_of(config if whole == model_type else {"model_type": whole})


def checkpoint_type(model_type: str) -> str:
    """The type of checkpoint that vLLM loads for a model type: a thinker is served as part of its Qwen-Omni."""
    return model_type.removesuffix("_thinker")


def _check_names(model_type: object, names: Sequence[str]) -> None:
    """Raise UnsupportedError if a config of a served type names an architecture that is not served."""
    of_type = [
        record for record in ARCHITECTURES.values() if record.model_type == model_type and record.name != GENERIC
    ]
    served = {of.replaces for of in of_type} | {of.saved_as for of in of_type if of.saved_as}
    others = [name for name in names if name not in served]
    if of_type and others:
        raise UnsupportedError(
            f'config.json names {", ".join(others)} in "architectures", which cannot be pruned inside vLLM: of type '
            f"{model_type!r}, only {' and '.join(sorted(served))} can. If the weights are in that format, write that "
            f"name there. {PATCH}"
        )
