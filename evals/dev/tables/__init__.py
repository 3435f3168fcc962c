"""The generated tables of the documentation, each made of stored results."""

from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "results" / "data"
