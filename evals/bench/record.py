"""The file of a benchmark: model and machine, every round's times, and the other costs of the cases.

Running a command again with the same file adds rounds. Cases may differ between rounds, because everything is compared
within rounds.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import torch

import tokenprune
from tokenprune.errors import SettingError
from tokenprune.evals.bench.cases import Facts
from tokenprune.evals.bench.schedule import Schedule
from tokenprune.evals.bench.timing.clock import Seconds
from tokenprune.evals.models.tensors import stored_bytes
from tokenprune.evals.storage import files
from tokenprune.evals.storage.identity import check_same
from tokenprune.evals.storage.provenance import device_name, matmul_precision, versions

SOURCES = Path(tokenprune.__file__).resolve().parent


@dataclass(frozen=True)
class Round:
    """One run of some cases, in turn.

    moment: when it ended. seconds: by case and phase. others: how many cores other processes used meanwhile, on
        average; None in files from before that was stored.
    """

    batch: int
    moment: str
    seconds: dict[str, Seconds]
    others: float | None = None


class Record:
    """The content of a file.

    about: model, dtype, device, machine, versions and whatever else must be the same for rounds to be comparable.
    facts: of every case, by batch size and name.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        facts: list[Facts],
        rounds: list[Round],
    ) -> None:
        self.path, self.about, self.rounds = path, dict(about), rounds
        self._stored: str | None = None  # what the file holds, as far as this process knows
        self.facts = {(fact.batch, fact.name): fact for fact in facts}

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read a file. Raises SettingError if it is not one of `tokenprune bench`."""
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text)
            facts = [Facts(**case | {"schedule": Schedule.from_json(case["schedule"])}) for case in content["cases"]]
            rounds = [Round(**round_) for round_ in content["rounds"]]
            record = cls(path, content["about"], facts, rounds)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SettingError(
                f"{path}: not written by tokenprune bench ({type(error).__name__}). Name another --output."
            ) from error
        record._stored = text
        return record

    @staticmethod
    def check_path(path: Path) -> None:
        """Raise SettingError for a file that cannot be written, that is not one of `tokenprune bench`, or that the plot
        next to it would replace."""
        files.check_file(path)
        if path.suffix != ".json":
            raise SettingError(f"{path}: the results are JSON; write {path.with_suffix('.json')}.")
        if path.is_file():
            Record.read(path)

    @classmethod
    def open(cls, path: Path, about: Mapping[str, Any]) -> "Record":
        """Resume a file, or begin one. Raises SettingError that names every difference, if there is one."""
        if not path.is_file():
            return cls(path, about, [], [])
        record = cls.read(path)
        holds, words = f"{path}: its rounds were measured", {"sources": "other source code of tokenprune"}
        check_same(record.about, about, holds, "Name another --output.", words)
        return record

    def check_settings(self, name: str, settings: Mapping[str, Any] | None) -> None:
        """Raise SettingError, which says what differs, if a case of this name was measured with other settings: names
        are not unique, and a settings file or a strategy's code may have changed."""
        known = next((fact.settings for fact in self.facts.values() if fact.name == name), None)
        if known is not None and settings is not None:
            holds, words = f"{self.path}: {name} was measured", {"class": "other code of the strategy"}
            check_same(known, settings, holds, "Name another --output.", words)

    def add(self, fact: Facts) -> None:
        self.facts[fact.batch, fact.name] = fact

    def add_round(self, batch: int, seconds: dict[str, Seconds], others: float | None = None) -> None:
        moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.rounds.append(Round(batch, moment, seconds, others))

    def write(self) -> None:
        """Replace the file. Raises SettingError if another process has written it meanwhile: its rounds would be lost,
        and both disturb each other's."""
        if self.path.is_file() and self.path.read_text(encoding="utf-8") != self._stored:
            raise SettingError(
                f"{self.path}: another benchmark has written it since this one began. Wait until that is done and "
                "repeat the command, or name another --output."
            )
        content = {
            "about": self.about,
            "cases": [asdict(fact) | {"schedule": fact.schedule.to_json()} for fact in self.facts.values()],
            "rounds": [asdict(round_) for round_ in self.rounds],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=1) + "\n"
        files.replace(self.path, text)
        self._stored = text

    @property
    def title(self) -> str:
        """The model, and the image's kind and size."""
        return f"{self.about['model']}, {self.about.get('image', 'image')} of {self.about['side']} px"

    @property
    def dates(self) -> str:
        """The day, or the first and last day."""
        days = sorted({round_.moment[:10] for round_ in self.rounds})
        return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "not timed"


def about(model: Any, name: str, attention: str, side: int) -> dict[str, Any]:
    """Return everything that affects the time of a round; for the library, a digest of its sources.

    side: pixels of the image, as prompts.py takes them.
    """
    return {
        "model": name,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "weight_bytes": sum(map(stored_bytes, model.parameters())),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": attention,
        "side": side,
        "device": device_name(model.device),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "versions": versions(),
        "sources": _digest(),
        **matmul_precision(),
    }


def cpu() -> str:
    """Return the processor's name and the instruction set that PyTorch uses."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def _digest() -> str:
    digest = hashlib.sha256()
    for folder in (SOURCES, SOURCES / "adapters"):  # rglob follows no symlinks
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
