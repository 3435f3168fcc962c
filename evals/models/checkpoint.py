"""What is known about a checkpoint before its weights are loaded, and what vLLM can prune it with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.text_files import read_json

if TYPE_CHECKING:
    from tokenprune.serving.vllm.architectures.architecture import Architecture


@dataclass(frozen=True)
class Checkpoint:
    """What is known about a checkpoint: its type and its vision tower's, the architectures that its config names, and
    the config, if it was read."""

    model_type: str
    tower: str | None = None
    architectures: tuple[str, ...] = ()
    config: Mapping[str, Any] | None = None

    @property
    def converted_type(self) -> str:
        """The type of the transformers class that reads it or, if it is in its authors' format, its conversion."""
        from tokenprune.serving.vllm.architectures import ARCHITECTURES
        from tokenprune.serving.vllm.architectures.checkpoints import CONVERTED

        named = (record.converted for record in ARCHITECTURES.values() if record.replaces in self.architectures)
        return next(filter(None, named), None) or CONVERTED.get(self.model_type, self.model_type)

    def is_of(self, class_name: str) -> bool:
        """Whether its config names this transformers class, under any name used in such checkpoints, or none. Into
        another class, transformers loads the weights with matching names, and initialises the others at random."""
        from tokenprune.serving.vllm.architectures import ARCHITECTURES
        from tokenprune.serving.vllm.architectures.checkpoints import TWO_FORMATS

        shared = self.model_type in TWO_FORMATS
        of_type = [record for record in ARCHITECTURES.values() if record.model_type == self.model_type and not shared]
        names = {class_name, *(name for record in of_type for name in (record.replaces, record.saved_as))}
        return not self.architectures or bool(names & {*self.architectures})


def read_folder(folder: Path) -> Checkpoint | None:
    """The checkpoint that a model folder's config describes; None for any other folder. DataError if the config is
    broken JSON."""
    from tokenprune.serving.vllm.architectures.params import PARAMS, config_of_params

    in_mistral_format = (folder / PARAMS).is_file() and not (folder / "config.json").exists()
    path = folder / (PARAMS if in_mistral_format else "config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        config = read_json(path)  # whose error names line and column
    try:
        if in_mistral_format:
            config = config_of_params(config)
        tower = (config.get("vision_config") or {}).get("model_type")
        return Checkpoint(str(config["model_type"]), tower, tuple(config.get("architectures") or ()), config)
    except (LookupError, TypeError, AttributeError):
        return None


def in_vllm(checkpoint: Checkpoint) -> str | None:
    """Why a checkpoint cannot be pruned inside vLLM with any strategy; None if it can."""
    from tokenprune.errors import UnsupportedError

    try:
        served_by(checkpoint)
    except UnsupportedError as error:
        return str(error)
    return None


def served_by(checkpoint: Checkpoint) -> Architecture:
    """The architecture that serves a checkpoint. Raises UnsupportedError if none does."""
    from tokenprune.serving.vllm.architectures import ARCHITECTURES
    from tokenprune.serving.vllm.architectures.checkpoints import architecture_of

    known = {"model_type": checkpoint.model_type, "architectures": checkpoint.architectures}
    return ARCHITECTURES[architecture_of(checkpoint.config or known)]


def served(checkpoint: Checkpoint, strategies: Sequence[str]) -> tuple[list[str], str]:
    """The strategies that vLLM also runs, with their default settings, for a checkpoint that it can prune, judged by
    its config or, if unknown, its type; and why its config forbids the last of the others."""
    from tokenprune.errors import UnsupportedError
    from tokenprune.serving.vllm.architectures.checkpoints import architecture_of
    from tokenprune.serving.vllm.hf_overrides import overrides
    from tokenprune.serving.vllm.settings import Settings
    from tokenprune.serving.vllm.startup.refusals import check_strategy
    from tokenprune.strategies.parsing import parse

    names, reason = [], ""
    architecture = architecture_of({"model_type": checkpoint.model_type, "architectures": checkpoint.architectures})
    for name in strategies:
        strategy = parse(name)
        try:
            check_strategy(strategy, 32, architecture)
        except UnsupportedError:
            continue
        try:
            if checkpoint.config is not None:
                overrides(checkpoint.config, Settings(strategy))
        except UnsupportedError as error:
            reason = str(error)
        else:
            names.append(name)
    return names, reason
