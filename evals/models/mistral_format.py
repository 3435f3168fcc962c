"""Checkpoints in Mistral's own format, with params.json and consolidated*.safetensors, which only vLLM reads."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import list_repo_files
from huggingface_hub.errors import OfflineModeIsEnabled
from transformers.utils.hub import cached_file

from tokenprune.errors import DataError
from tokenprune.evals.models.loading import read_config
from tokenprune.serving.vllm.architectures.params import PARAMS, config_of_params
from tokenprune.text_files import read_json

#: The weights of such a checkpoint.
WEIGHTS = "consolidated*.safetensors"


def served_config(name: str, revision: str | None = None, config_format: str = "auto") -> dict[str, Any]:
    """Return the config of a folder or a Hugging Face name that vLLM reads with this --config-format: params.json, as
    `config_of_params` returns it, or config.json. DataError if there is none."""
    if config_format != "mistral" and (config_format != "auto" or not in_mistral_format(name, revision)):
        return read_config(name, revision)
    if (params := _params_file(name, revision)) is None:
        raise DataError(f"{name}: found no {PARAMS}, which --config-format mistral reads. Leave the option out")
    return config_of_params(read_json(params))


def in_mistral_format(name: str, revision: str | None = None) -> bool:
    """Return whether vLLM reads a folder or a Hugging Face name as in this format, if no option says how."""
    params = _params_file(name, revision)
    return params is not None and _has_weights(name, revision, params.parent)


def _params_file(name: str, revision: str | None) -> Path | None:
    """Return the path of a checkpoint's params.json; None if it has none or cannot be reached."""
    try:
        path = cached_file(name, PARAMS, revision=revision, _raise_exceptions_for_missing_entries=False)
    except OSError:  # reading config.json fails too, and says why
        return None
    return None if path is None else Path(path)


def _has_weights(name: str, revision: str | None, folder: Path) -> bool:
    """Return whether a checkpoint, of which some files are in a folder, has weights in this format."""
    if (held := any(folder.rglob(WEIGHTS))) or Path(name).is_dir():
        return held
    try:
        return any(fnmatch(Path(file).name, WEIGHTS) for file in list_repo_files(name, revision=revision))
    except OfflineModeIsEnabled:
        return False
