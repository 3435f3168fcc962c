"""Fill the tables of Markdown documents from stored results: `python -m tokenprune.evals.dev.tables FILE...`."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tokenprune.evals.dev.tables import catalogue, served, sets
from tokenprune.evals.dev.tables.accuracy import (
    adapted,
    headline,
    judged,
    kinds,
    paired,
    references,
    resolutions,
    strategies,
    variants,
    videos,
    which_strategy,
)
from tokenprune.evals.dev.tables.speed import bench, serving, tower
from tokenprune.evals.report import markers

#: The function that makes each table, by the name in the table's markers.
TABLES: dict[str, Callable[[], str]] = {
    "headline": headline.stored,
    "accuracy": strategies.stored,
    "accuracy on other grids": strategies.on_other_grids,
    "accuracy by resolution": resolutions.stored,
    "kinds of questions": kinds.stored,
    "paired differences": paired.stored,
    "differences to references": references.stored,
    "variants": variants.stored,
    "directions": judged.findings,
    "which strategy": which_strategy.stored,
    "speed": bench.summary_of_stored,
    "bench": bench.stored,
    "serving": serving.stored,
    "videos": videos.stored,
    "adapted": adapted.stored,
    "adapted at a higher rate": partial(adapted.stored, "adapted_higher_rate"),
    "adapted, pruning": partial(adapted.stored, "adapted_fopru"),
    "adapted, shrinking": partial(adapted.stored, "adapted_downsample"),
    "adapted without labels": partial(adapted.stored, "adapted_no_labels"),
    "before the tower": tower.before,
    "in the tower": tower.inside,
    "served models": served.table,
    "published sets": sets.table,
    "strategies": catalogue.summary,
    **{f"strategies: {folder}": partial(catalogue.stored, folder) for folder in catalogue.FOLDERS},
}


def filled(text: str) -> str:
    """Return a document with all of its tables regenerated. Raises ValueError for an unknown name."""
    unknown = [name for name in markers.names_in(text) if name not in TABLES]
    if unknown:
        raise ValueError(f"no table is called {unknown[0]!r}; there are {', '.join(TABLES)}")
    return markers.fill(text, TABLES)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tokenprune.evals.dev.tables",
        description="Regenerate every table of the documents from the stored results.",
        epilog=f"Tables are between <!-- table: NAME --> and <!-- end of table: NAME -->. Names: {', '.join(TABLES)}.",
    )
    parser.add_argument("documents", nargs="+", type=Path, metavar="FILE")
    for path in parser.parse_args(arguments).documents:
        text = catalogue.public_names() if path.suffix == ".pyi" else filled(path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
