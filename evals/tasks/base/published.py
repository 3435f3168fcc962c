"""Where a set is published, what its files are, and how many questions it has."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLES = ("data/*.parquet",)
FILE = Path(__file__).parents[1] / "sets.toml"


@dataclass(frozen=True)
class Snapshot:
    """A repository of data sets on the Hugging Face Hub.

    files: patterns of the files that a task reads, all of which have answers; they keep their places in the folder.
    archives: patterns of zip files, or of the parts of one tar file, and the place in the folder to extract them to.
    """

    repository: str
    files: tuple[str, ...] = TABLES
    archives: Mapping[str, str] = field(default_factory=dict)

    @property
    def download(self) -> str:
        """The command that downloads it."""
        return f"hf download {self.repository} --repo-type dataset --local-dir SNAPSHOT"


@dataclass(frozen=True)
class Published:
    """A published set.

    questions: their number in each split with public answers, under the Hub's name for it if the set is there ("" if it
    has no name); empty if it is not known for sure.
    hub: the repositories that `arrange` knows. site: the authors' page with their own files.
    files: what the folder with the authors' own files must hold, as Markdown.
    """

    questions: Mapping[str, int]
    hub: tuple[Snapshot, ...] = ()
    site: str = ""
    files: str = ""


@cache
def published_sets() -> Mapping[str, Published]:
    """Return what FILE says, by the names of tasks."""
    sets = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {name: Published(**{**about, "hub": _snapshots(about)}) for name, about in sets.items()}


def _snapshots(about: Mapping[str, Any]) -> tuple[Snapshot, ...]:
    return tuple(Snapshot(**{**given, "files": tuple(given.get("files", TABLES))}) for given in about.get("hub", ()))
