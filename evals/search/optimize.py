"""Search VFlowOpt's settings on a few unlabelled questions (https://arxiv.org/abs/2508.05211, section 3).

The search uses Optuna's Gaussian-process sampler. Among maintained Bayesian optimisers, only Optuna has the paper's
Gaussian process and expected improvement and a journal that survives a kill, without further dependencies. The authors'
scikit-optimize is no longer maintained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import GPSampler
from optuna.trial import FrozenTrial
from tqdm import tqdm

from tokenprune.adapters import adapter_for
from tokenprune.errors import SettingError
from tokenprune.evals.run.calibration_images import image_digests
from tokenprune.evals.search.journal import finished, locked_study, sampler_seed
from tokenprune.evals.search.objective import Objective, State
from tokenprune.evals.search.space import LOGARITHMIC, SearchSpace, check_searchable
from tokenprune.evals.storage import files
from tokenprune.evals.storage.provenance import (
    class_identity,
    config_digest,
    kernels,
    processor_digest,
    versions,
    weights_digest,
)
from tokenprune.evals.tasks.base.question import Question
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.strategies.registry import settings_of

SEARCHED = ("first", "second", "threshold", "alpha", "cell")

#: Trials drawn at random before the Gaussian process starts; the default settings are the first of them.
N_RANDOM = 10


@dataclass(frozen=True)
class Names:
    """The names of model, data and split in the settings file."""

    model: str = ""
    data: str = ""
    split: str | None = None


def optimize(
    model: Any,
    processor: Any,
    questions: Sequence[Question],
    output: Path,
    *,
    base: VFlowOpt | None = None,
    strategy: str = "vflowopt",
    state: State = "last_token",
    trials: int = 50,
    seed: int = 0,
    names: Names | None = None,
) -> dict[str, Any]:
    """Write the settings that keep the model's state nearest to the unpruned one, and return what was written.

    questions: only their images and texts are used. The file names the images, and the evals leave them out.
    output: a settings file for `patch`, with where it comes from and every trial. The journal next to it, with
        the ending `.journal`, lets the same call resume after a kill, or with more `trials`. Raises SettingError if it
        holds another search.
    base: the centre of the search; its keep_ratio is the average that every trial spends. Trial 0 is `base` itself, so
        the result is never worse on these questions.
    strategy: the name of `base`'s class for the settings file.
    state: whose agreement is maximised, see `tokenprune.evals.search.objective`.
    """
    base, names = base or VFlowOpt(keep_ratio=0.1), names or Names()
    check_output(output)
    if trials < 1 or not questions:
        raise SettingError(
            f"a search of {trials} trials on {len(questions)} questions finds nothing; it needs at least one of each."
        )
    journal = output.with_suffix(".journal")
    adapter = adapter_for(model)
    check_searchable(base, len(adapter.layers))
    about_model = {
        "class": type(model).__name__,
        "layers": len(adapter.layers),
        "dtype": str(model.dtype).removeprefix("torch."),
        "weights": weights_digest(model),
    }
    about_data = {"split": names.split, "ids": [question.id for question in questions], "digest": _digest(questions)}
    named = {} if strategy == "vflowopt" else {"strategy": strategy, "code": class_identity(base)}
    about_search = {"state": state, "seed": seed, "logarithmic": list(LOGARITHMIC)}
    identity = {
        **settings_of(base),
        **named,
        **about_model,
        "config": config_digest(model.config),
        "kernels": kernels(model),
        "processor": processor_digest(processor),
        **about_data,
        **about_search,
    }
    with locked_study(journal, identity) as study:
        objective = Objective(model, processor, questions, state=state, layer=base.layer)
        if "box" not in study.user_attrs:  # stored, so that a resume on another device has the same space
            study.set_user_attr("box", [objective.grid_side, objective.highest_attention])
        space = SearchSpace(base, len(adapter.layers), *study.user_attrs["box"], colors="colors" in adapter.offers)
        _search(study, objective, space, trials, seed)
        record = {
            "strategy": strategy,
            "settings": _best(study).user_attrs["settings"],
            "model": {"name": names.model, **about_model},
            "search": {
                "objective": _objective(study, state),
                "data": {
                    "name": names.data,
                    "visual_tokens": objective.n_visual,
                    **about_data,
                    "images": image_digests(questions),  # the evals leave them out
                },
                "box": space.sides,
                "seed": seed,
                "versions": {**versions(), "optuna": version("optuna")},
                "device": str(model.device),
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "base": settings_of(base),
                "trials": [
                    {"objective": trial.value, **{name: trial.user_attrs["settings"][name] for name in SEARCHED}}
                    for trial in finished(study)
                ],
            },
        }
    files.replace(output, json.dumps(record, indent=1) + "\n")
    return record


def check_output(output: Path) -> None:
    """Raise SettingError for a settings file that `optimize` cannot write."""
    files.check_file(output)
    if output.suffix != ".json":
        raise SettingError(
            f"{output}: patch() recognises a settings file by its ending; write {output.with_suffix('.json')}."
        )
    journal = output.with_suffix(".journal")
    if output.exists() and not journal.exists():
        raise SettingError(f"{output}: exists, but {journal.name} to resume from does not. Name another output.")


def _search(study: optuna.Study, objective: Objective, space: SearchSpace, trials: int, seed: int) -> None:
    sides: dict[str, BaseDistribution] = {
        name: FloatDistribution(*side, log=name in LOGARITHMIC) for name, side in space.sides.items()
    }
    n_done = len(finished(study))
    with tqdm(total=max(trials, n_done), initial=n_done, unit="trial") as bar:
        if n_done == 0:
            settings = {"settings": settings_of(space.base)}
            value = objective.agreement(space.base)
            study.add_trial(
                optuna.create_trial(
                    params=dict(space.point(space.base)), distributions=sides, value=value, user_attrs=settings
                )
            )
            bar.update()
        for number in range(max(1, n_done), trials):
            study.sampler = _sampler(seed, number)
            trial = study.ask(sides)
            strategy = space.strategy(trial.params)
            trial.set_user_attr("settings", settings_of(strategy))
            study.tell(trial, objective.agreement(strategy))
            bar.set_postfix(best=f"{study.best_value:.5f}", default=f"{finished(study)[0].value:.5f}")
            bar.update()


def _sampler(seed: int, number: int) -> GPSampler:
    """Return the sampler of one trial."""
    return GPSampler(seed=sampler_seed(seed, number), n_startup_trials=N_RANDOM, warn_independent_sampling=False)


def _best(study: optuna.Study) -> FrozenTrial:
    """Return the first of the best trials."""
    return max(finished(study), key=lambda trial: trial.values[0])


def _objective(study: optuna.Study, state: State) -> dict[str, Any]:
    trials, best = finished(study), _best(study)
    numbers = [trial.number for trial in trials]
    return {
        "state": state,
        "default": trials[0].value,
        "best": best.value,
        "best_trial": numbers.index(best.number),
    }


def _digest(questions: Sequence[Question]) -> str:
    digest = hashlib.sha256()
    for question in questions:
        digest.update(f"{question.id}\n{question.text}\n".encode())
        for image in question.images:
            digest.update(image.read_bytes())
    return digest.hexdigest()[:16]
