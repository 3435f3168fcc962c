"""Whether the runs and files of one report asked the same model the same questions."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tokenprune.errors import DataError
from tokenprune.evals.reading.fields import as_object, text
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.run_folder import RunFolder


def check_same_questions(by_file: Mapping[Path, Sequence[TaskResult]]) -> None:
    """Raise DataError if two of these run folders or files of rows have different questions for one task of one set.

    A row identifies the set by its folder alone, and questions by their IDs, which users' own sets may share because
    they are numbered. Run folders are therefore also compared by the digests of texts, right answers and images in
    their `run.json`; a file of rows has none, and an older folder may lack one.
    """
    first: dict[tuple[str, ...], tuple[Path, object]] = {}
    for path, rows in by_file.items():
        contents = RunFolder(path).record["identity"]["data"] if path.is_dir() else {}
        for row in rows:
            known_by = {"IDs": row.questions} | as_object(
                contents.get(row.task, {}), f"{path}, {row.task!r} of run.json"
            )
            for by, value in known_by.items():
                other, known = first.setdefault((row.dataset, row.model, row.task, by), (path, value))
                if value is not known and value != known:  # NaN, in a damaged file, differs from itself
                    places = " and ".join(dict.fromkeys((str(other), str(path))))
                    raise DataError(
                        f"{places}: the {row.task} questions of {row.dataset!r} differ; measure both with the same "
                        "--data, --split and --limit, or report on one at a time. If one of them used a settings file, "
                        "which leaves out the images that it was calibrated on, measure the other one with "
                        "--apart-from FILE"
                    )


def check_same_weights(paths: Iterable[Path]) -> None:
    """Raise DataError if two of these run folders are of models with the same name and dtype but different weights. A
    name may be just a folder's; files of rows and engines do not say more.
    """
    first: dict[tuple[str, str], tuple[Path, str]] = {}
    for path in (path for path in paths if path.is_dir()):
        record, where = RunFolder(path).record, f"{path / 'run.json'}, 'model'"
        about, model = record["about"], as_object(record["identity"].get("model", {}), where)
        if "model" not in about or "weights" not in model or "engine" in about:
            continue
        name, weights = text(about, "model", where), text(model, "weights", where)
        other, known = first.setdefault((name, text(model, "dtype", where)), (path, weights))
        if weights != known:
            raise DataError(
                f"{other} and {path}: their models are both called {name!r}, but have other weights; report on one at "
                "a time"
            )
