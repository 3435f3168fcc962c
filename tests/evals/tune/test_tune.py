"""Complete tunings, on a tiny model with practically random answers."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import command
from helpers.files.evals import saved, tiny_processor
from helpers.files.search import deep_llava, write_scenes

import tokenprune
from tokenprune import DataError, SettingError, UnsupportedError
from tokenprune.evals.run.calibration_images import calibrated_on
from tokenprune.evals.run.setups import make_setups
from tokenprune.evals.storage import files
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tune.confirm import Tuned
from tokenprune.evals.tune.tune import tune
from tokenprune.strategies import parse
from tokenprune.strategies.settings import SettingsFile

FEW: dict[str, Any] = {"generations": 2, "size": 4, "strategies": ("fopru", "flowcut"), "max_loss": 20.0}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 39)
    return folder


def tuned(scenes: Path, output: Path, **options: Any) -> Tuned:
    return tune((deep_llava(), tiny_processor()), data=scenes, output=output, **{**FEW, **options})


@pytest.fixture(scope="module")
def undisturbed(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuned, Path]:
    output = tmp_path_factory.mktemp("tuned")
    return tuned(scenes, output), output


def summary(found: Tuned) -> Any:
    return (
        found.passed,
        found.strategy,
        [(one.tried.setup.key, one.loss, one.passed) for one in found.tested],
        [(one.setup.key, one.cost, one.loss) for one in found.tried],
    )


def test_what_is_found(undisturbed: tuple[Tuned, Path], scenes: Path) -> None:
    """No answer is right, with or without pruning, so nothing is lost: 20 questions show that it is less than 20
    points."""
    found, output = undisturbed
    assert found.passed
    assert found.best is not None
    assert found.best is [one.tried for one in found.tested if one.passed][-1]
    assert len(found.tried) == 8
    assert found.best.cost == min(one.tried.cost for one in found.tested) < 1
    file = SettingsFile.read(output / "settings.json")
    assert file.make() == found.strategy
    assert len(calibrated_on(file)) == 40  # evaluations leave out all of these images
    ratio = found.best.setup.keep_ratio
    (setup,) = make_setups([str(output / "settings.json")], [ratio], ["original"], [])
    with setup.patched(deep_llava()) as handle:
        assert handle.strategy == found.strategy
    page = (output / "tuned.md").read_text()
    assert f"--keep-ratio {ratio:g}" in page.splitlines()[2]
    assert "% of the unpruned model's prefill operations and loses at most 20 points of accuracy: it lost 0.0" in page
    assert "points on 20 questions that the search never saw, and at most" in page
    assert f"--data DIR --strategy {output / 'settings.json'} --keep-ratio {ratio!r}\n" in page
    assert f'tokenprune.patch(model, "{output / "settings.json"}")' in page
    assert f"Settings tried: {len(found.tried)}, each on the first few of 20 questions; on all of them: " in page
    assert (output / "tuned.png").stat().st_size > 10_000


def test_a_model_in_training_is_tuned_in_evaluation_mode(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, modes = deep_llava(), []
    monkeypatch.setattr("tokenprune.evals.tune.tune.search", lambda *_: modes.append(model.training) or [])
    model.train()
    try:
        tuned(scenes, tmp_path)
        modes.append(model.training)
    finally:
        model.eval()
    assert modes == [False, True]


def test_questions_of_the_test_are_not_those_of_the_search(undisturbed: tuple[Tuned, Path]) -> None:
    found, output = undisturbed
    asked: dict[str, set[str]] = {}
    for answer in RunFolder(output / "answers").answers().values():
        asked.setdefault(str(answer.key), set()).add(answer.id)
    first = set.intersection(*asked.values())
    for one in found.tested:
        assert len(asked[str(one.tried.setup.key)] - first) >= one.loss.n == 20
    untested = [one for one in found.tried if one.setup.key not in [two.tried.setup.key for two in found.tested]]
    fresh = set.union(*asked.values()) - set.union(*(asked[str(one.setup.key)] for one in untested))
    assert len(fresh) == 20


@pytest.mark.parametrize("batches", [2, 9])
def test_a_killed_tuning_resumes(
    batches: int, undisturbed: tuple[Tuned, Path], scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the same and asks no question twice (a run folder refuses duplicate answers)."""
    append, left = files.append, [batches]

    def dies(*given: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        append(*given)

    monkeypatch.setattr(files, "append", dies)
    with pytest.raises(KeyboardInterrupt):
        tuned(scenes, tmp_path)
    monkeypatch.undo()
    assert summary(tuned(scenes, tmp_path)) == summary(undisturbed[0])
    with pytest.raises(SettingError, match=r"another search, with max_loss=20\.0 and not max_loss=3\.0"):
        tuned(scenes, tmp_path, max_loss=3.0)


@pytest.mark.parametrize("without_journal", [False, True])
@pytest.mark.parametrize("change", [{"max_loss": 3.0}, {"labels": False}, {"generations": 3}])
def test_another_tuning_gets_no_answers_of_this_one(
    change: dict[str, Any], without_journal: bool, undisturbed: tuple[Tuned, Path], scenes: Path, tmp_path: Path
) -> None:
    """Not even if the journal is deleted. More generations would test other settings on the same held-out questions."""
    output = tmp_path / "tuned"
    shutil.copytree(undisturbed[1], output)
    if without_journal:
        (output / "search.journal").unlink()
    told = "holds another tuning, with .* delete its folder" if without_journal else f"or delete {output} to start"
    with pytest.raises(SettingError, match=told):
        tuned(scenes, output, **change)


def test_a_target_that_cannot_be_met_gives_the_best_that_was_found(scenes: Path, tmp_path: Path) -> None:
    """The command fails, and nothing takes the file unless told to."""
    model, output = saved(deep_llava(), tmp_path / "model"), tmp_path / "out"
    options = ["--generations", 1, "--size", 4, "--strategy", "fopru", "--no-labels", "--keep-ratio", 0.05, 0.3]
    assert command("tune", "--model", model, "--data", scenes, "--output", output, *options) == 1
    assert not (output / "settings.json").exists()
    file = output / "unproven.json"
    found = SettingsFile.read(file)
    assert found.search["promised"] is False
    assert parse(f"{file}:unproven") == found.make()
    page = (output / "tuned.md").read_text()
    assert "**No setting was shown to lose at most 1 point of agreement with the unpruned" in page
    ratio = found.settings["keep_ratio"]
    assert f"--strategy {file}:unproven --keep-ratio {ratio!r}\n" in page
    assert not [name for name in ("patch(", "Runner-up") if name in page]
    told = f"{file}: a loss of at most 1.0 points was not shown for these settings. .* write {file}:unproven$"
    with pytest.raises(SettingError, match=told):
        tokenprune.patch(deep_llava(), file)
    evaluated = ["--model", model, "--data", scenes, "--strategy", file, "--keep-ratio", ratio]
    assert "was not shown for these settings" in command("eval", *evaluated, "--output", tmp_path / "eval")


def test_bad_input_is_a_sentence(scenes: Path, tmp_path: Path) -> None:
    model = saved(deep_llava(), tmp_path / "model")
    (tmp_path / "empty").mkdir()

    def said(data: Path, *options: object) -> str:
        return command("tune", "--model", model, "--data", data, "--output", tmp_path / "out", *options)

    assert "no questions; it needs your own in questions.jsonl" in said(tmp_path / "empty", "--batch-tokens", 512)
    assert "3 questions about 3 images: tuning searches on one half" in said(scenes, "--limit", 3)
    assert "max_loss=0 is not between 0 and 100 points" in said(scenes, "--max-loss", 0)
    assert "write the lower first" in said(scenes, "--keep-ratio", 0.9, 0.1)
    assert "Did you mean 'fopru'" in said(scenes, "--strategy", "fopruu")
    assert "fastv: FastV cannot run inside vLLM" in said(scenes, "--strategy", "fastv", "--servable")


def test_a_model_that_vllm_cannot_prune_has_no_servable_settings(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(deep_llava().config), "model_type", "paligemma")
    with pytest.raises(UnsupportedError, match="'paligemma' cannot be pruned inside vLLM"):
        tuned(scenes, tmp_path, servable=True)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategies": ("fopru", "fopru")}, "named twice"),
        ({"keep_ratios": [0.5]}, r"keep_ratios=\[0\.5\]: write two, the lowest and the highest"),
        ({"generations": 0}, "generations=0 is not a whole number above 0"),
        ({"cost": "flop"}, "Did you mean 'flops'"),
        ({"labels": False, "compare": "first_token"}, "Did you mean 'first-token'"),
        ({"output": __file__}, "test_tune.py: cannot be a folder, because it is a file. Name another --output"),
    ],
)
def test_mistakes_are_said_before_the_weights_load(
    options: dict[str, Any], message: str, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(deep_llava(), tmp_path / "model")
    monkeypatch.setattr("tokenprune.evals.tune.tune.load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(SettingError, match=message):
        tune(model, data=scenes, **{"output": tmp_path / "out", **options})


def test_the_package_has_it() -> None:
    assert tokenprune.tune is tune
    with pytest.raises(DataError, match="no such folder"):
        tune((deep_llava(), tiny_processor()), data="nowhere", output="nowhere")
