"""The scorer of the experiments on settings: it asks a model a data set under many setups, each question once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from tokenprune.evals.models.loading import load_model
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.run.calibration_images import calibrated_on, without_images
from tokenprune.evals.run.progress import progress_bar
from tokenprune.evals.run.questions import limit_questions, load_questions
from tokenprune.evals.storage.identity import record_identity
from tokenprune.evals.storage.provenance import model_identity, tasks_identity, versions
from tokenprune.evals.tune.questions import Half, in_chunks
from tokenprune.evals.tune.scoring import ModelScorer, locked_answers
from tokenprune.strategies.settings import SettingsFile

#: Tokens per batch, so that a chunk of questions about the bundled scenes is one batch.
BATCH_TOKENS = 5120


@contextmanager
def locked_scorer(
    model: str, data: Path, limit: int | None, output: Path, n_setups: int, calibrated: Sequence[Path] = ()
) -> Iterator[tuple[ModelScorer, Half]]:
    """Yield a scorer of a model in float32, and the questions of all tasks, up to `limit` of each. The scorer keeps the
    answers in the folder `output`, which is locked against other processes and from which a killed run resumes.

    n_setups: the number of setups that will be scored, to estimate the time left. calibrated: settings files whose
    calibration images are left out. Raises SettingError if the folder holds the answers of another run.
    """
    loaded, processor = load_model(model, "float32")
    style = style_of(loaded.config, processor)
    images = frozenset[str]().union(*(calibrated_on(SettingsFile.read(path)) for path in calibrated))
    half = in_chunks(limit_questions(without_images(load_questions(data, style=style), images, str(data)), limit))
    output.mkdir(parents=True, exist_ok=True)
    with locked_answers(output) as (write, found), progress_bar(Console()) as progress:
        identity = {**model_identity(loaded), **tasks_identity(half.questions), **versions()}
        record_identity(output / "identity.json", identity, "another run")
        bar = progress.add_task("answers", total=n_setups * len(half.questions))
        yield (
            ModelScorer(
                loaded,
                processor,
                write,
                found,
                measure="accuracy",
                batch_tokens=BATCH_TOKENS,
                advance=lambda n: progress.advance(bar, n),
            ),
            half,
        )
