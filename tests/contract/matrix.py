"""The table of models and modes in adapters/README.md. `make matrix` runs the contract matrix and writes it."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS, README = ROOT / "tests" / "contract" / "matrix.json", ROOT / "adapters" / "README.md"
BEGIN, END = "<!-- matrix: made by `make matrix` -->", "<!-- end of matrix -->"

#: Column of the table -> the labels of the cells that it summarises.
COLUMNS = {
    "greedy": ["greedy single", "greedy padded"],
    "sampling": ["sampled padded"],
    "beams": ["beams"],
    "padding left, right": ["greedy padded", "plain_forward left", "plain_forward right"],
    "several images": ["greedy padded"],
    "video": ["greedy video", "uncached video", "loop video", "greedy both", "static both"],
    "static cache": ["static single", "static padded"],
    "no cache": ["uncached single", "uncached padded"],
    "own decode loop": ["loop padded"],
    "inputs_embeds": ["embedded padded"],
    "text only": ["text_only_is_bitwise_the_unpatched_model"],
    "compact IDs": ["compact_is_masking_under_compact_ids"],
}


def label_of(test: str, parameters: dict[str, object]) -> str:
    """The cell that a test of the matrix fills."""
    if "mode" in parameters:
        return f"{parameters['mode']} {parameters['batch']}"
    name = test.split("[")[0].removeprefix("test_")
    return f"{name} {parameters['padding']}" if "padding" in parameters else name


def table(results: dict[str, dict[str, str]], class_names: dict[str, str]) -> str:
    """Markdown: a row per family. ✓: every test passed; ✗: one failed; HF: transformers itself cannot do it; empty: the
    family has no such input."""
    lines = [f"| | {' | '.join(COLUMNS)} |", f"|---|{':-:|' * len(COLUMNS)}"]
    for family, class_name in class_names.items():
        cells, marks = results.get(family, {}), []
        for labels in COLUMNS.values():
            found = {cells[label] for label in labels if label in cells}
            worst = next((mark for mark in ("failed", "cannot", "passed") if mark in found), "")
            marks.append({"failed": "✗", "cannot": "HF", "passed": "✓", "": ""}[worst])
        lines.append(f"| {class_name} ({family}) | {' | '.join(marks)} |")
    return "\n".join(lines)


def section(readme: str) -> str:
    """The text between the markers of adapters/README.md."""
    return readme.split(BEGIN)[1].split(END)[0].strip()


def read_results() -> dict[str, dict[str, str]]:
    return json.loads(RESULTS.read_text())


if __name__ == "__main__":
    from helpers.families import FAMILIES

    text = README.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    made = table(read_results(), {name: family.class_name for name, family in FAMILIES.items()})
    README.write_text(f"{head}{BEGIN}\n\n{made}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
