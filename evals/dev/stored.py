"""Stored results: where they are, and what their files have in common."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results" / "data"


def versions(about: Mapping[str, Any]) -> str:
    """Return the versions that a measurement ran with, as shown below its table."""
    return ", ".join(f"{name} {version}" for name, version in about["versions"].items())


def json_lines(file: Path) -> list[dict[str, Any]]:
    """Return the records of a file with one JSON object per line."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
