"""What `tokenprune models` and the table in adapters/models.md show. `make matrix` runs the contract matrix and writes
both."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenprune.adapters.tested import FILE, Tested, read_tested

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "adapters" / "models.md"
BEGIN, END = "<!-- matrix: made by `make matrix` -->", "<!-- end of matrix -->"

#: Column of the table -> the labels of the cells that it summarises.
COLUMNS = {
    "greedy": ["greedy single", "greedy padded"],
    "sampling": ["sampled padded", "sampled single"],
    "beams": ["beams"],
    "denoising": ["denoised single", "denoised padded", "denoised right"],
    "padding left, right": [
        "greedy padded",
        "plain_forward left",
        "plain_forward right",
        "denoised padded",
        "denoised right",
        "padding",
    ],
    "several images": ["greedy padded", "denoised padded", "greedy alike"],
    "video": ["greedy video", "uncached video", "loop video", "greedy both", "static both"],
    "static cache": ["static single", "static padded"],
    "no cache": ["uncached single", "uncached padded"],
    "own decode loop": ["loop padded", "loop single"],
    "inputs_embeds": ["embedded padded", "embedded single"],
    "text only": ["text_only_is_bitwise_the_unpatched_model"],
    "compact IDs": ["compact_is_masking_under_compact_ids", "other_ids_are_refused"],
}


def label_of(test: str, parameters: dict[str, object]) -> str:
    """Return the cell that a test of the matrix fills."""
    if "mode" in parameters:
        return f"{parameters['mode']} {parameters['batch']}"
    name = test.split("[")[0].removeprefix("test_")
    return f"{name} {parameters['padding']}" if "padding" in parameters else name


def facts_of(case: str) -> dict[str, Any]:
    """Return what the adapter of a family's model supports."""
    from helpers.contract.cells import EVERY, model_of

    from tokenprune.adapters import adapter_for
    from tokenprune.adapters.tested import combination_of
    from tokenprune.sequence.masks import FULL

    model = model_of(case)
    adapter = adapter_for(model)
    _, _, classes, kinds = combination_of(adapter)
    return {
        "class_name": EVERY[case].class_name,
        "model_type": model.config.model_type,
        "adapter": type(adapter).__name__,
        "contract": adapter.decoder.layers.contract,
        "statistics": sorted(adapter.offers),
        "classes": list(classes),
        "layers": list(kinds),
        "stages": set(adapter.decoder.layers.kinds) == {FULL} and adapter.only_before is None,
        "modalities": [modality.name for modality in adapter.modalities],
    }


def table(tested: Mapping[str, Tested]) -> str:
    """Return the Markdown table, one row per family. ✓: every test passed; ✗: one failed; HF: transformers itself
    cannot do it; empty: the family has no such input."""
    lines = [f"| | contract | {' | '.join(COLUMNS)} | error |", f"|---|---|{':-:|' * len(COLUMNS)}--:|"]
    for family, one in tested.items():
        marks = []
        for labels in COLUMNS.values():
            found = {one.cells[label] for label in labels if label in one.cells}
            worst = next((mark for mark in ("failed", "cannot", "passed") if mark in found), "")
            marks.append({"failed": "✗", "cannot": "HF", "passed": "✓", "": ""}[worst])
        lines.append(f"| {one.class_name} ({family}) | {one.contract} | {' | '.join(marks)} | {one.error:.0e} |")
    return "\n".join(lines)


def section(page: str) -> str:
    """Return the text between the markers of adapters/models.md."""
    return page.split(BEGIN)[1].split(END)[0].strip()


def write(runs: Path) -> None:
    """Write the table, and the data of `tokenprune models`, from the results of a run of the matrix. Families that were
    not run, such as those that this transformers lacks, keep what is stored."""
    from helpers.families import COMPACT_ONLY, DENOISING, FAMILIES

    found, stored = json.loads(runs.read_text()), json.loads(FILE.read_text(encoding="utf-8"))
    names = [*FAMILIES.classes, *DENOISING.classes, *COMPACT_ONLY.classes]
    tested = {case: {**facts_of(case), **found[case]} if case in found else stored[case] for case in names}
    FILE.write_text(json.dumps(tested, indent=1) + "\n", encoding="utf-8")
    read_tested.cache_clear()
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    made = table(read_tested())
    PAGE.write_text(f"{head}{BEGIN}\n\n{made}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
