"""The search of VFlowOpt's settings, on a tiny model."""

import fcntl
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families.base import IMAGE
from helpers.files.evals import tiny_processor
from helpers.files.search import BASE, deep_llava, scenes, searched
from helpers.forks import forked, forks
from helpers.models.staged import LAYERS
from torch.nn.functional import cosine_similarity

import tokenprune
from tokenprune import SettingError
from tokenprune.evals.models.bundled import SCENES, SETTINGS
from tokenprune.evals.run.calibration_images import calibrated_on, image_digests
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.search.calibration import sample_questions
from tokenprune.evals.search.objective import Objective
from tokenprune.evals.search.optimize import Names
from tokenprune.evals.storage.provenance import weights_digest
from tokenprune.prompts import encode_chat
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.strategies.settings import SettingsFile


@pytest.mark.parametrize("state", ["last_token", "mean_pooled"])
def test_agreement_is_the_cosine_of_what_the_head_gets(tmp_path: Path, state: Any) -> None:
    """It is compared with the final hidden states that transformers returns, one question at a time."""
    model, questions = deep_llava(), scenes(tmp_path)
    objective = Objective(model, tiny_processor(), questions, state=state)
    cosines = []
    for question in questions:
        inputs = encode_chat(tiny_processor(), [question.open_images()], [question.text])
        ids = inputs["input_ids"][0].tolist()
        n_read = 1 if state == "last_token" else len(ids) - 1 - max(i for i, token in enumerate(ids) if token == IMAGE)
        with torch.no_grad():
            whole = model.model(**inputs).last_hidden_state[0, -n_read:].mean(0)
            with tokenprune.patch(model, BASE):
                pruned = model.model(**inputs).last_hidden_state[0, -n_read:].mean(0)
        cosines.append(float(cosine_similarity(whole, pruned, dim=0)))
    assert objective.agreement(BASE) == pytest.approx(sum(cosines) / len(cosines), abs=1e-6)
    assert objective.agreement(BASE) < 0.9999
    assert objective.agreement(VFlowOpt(keep_ratio=1.0)) == pytest.approx(1, abs=1e-6)


def test_what_the_flow_tells_of_the_images(tmp_path: Path) -> None:
    objective = Objective(deep_llava(), tiny_processor(), scenes(tmp_path))
    assert (objective.n_visual, objective.grid_side) == (36, 6)
    above, below = (replace(BASE, threshold=objective.highest_attention * factor) for factor in (1.01, 0.2))
    assert objective.agreement(above) == objective.agreement(replace(BASE, threshold=1e9))  # no anchor in any image
    assert objective.agreement(below) != objective.agreement(above)


def test_the_file_says_where_settings_come_from(tmp_path: Path) -> None:
    questions, output = scenes(tmp_path / "scenes"), tmp_path / "new" / "settings.json"
    record = searched(questions, output, trials=13, names=Names("some/model", "scenes", "val"))
    assert json.loads(output.read_text()) == json.loads(json.dumps(record))
    search, trials = record["search"], record["search"]["trials"]
    assert len(trials) == 13
    assert search["base"] == vars(BASE)
    assert trials[0]["threshold"] == 30.0  # the default itself, not the nearest point of the search range
    values = [trial["objective"] for trial in trials]
    assert search["objective"] == {
        "state": "last_token", "default": values[0], "best": max(values), "best_trial": values.index(max(values))
    }  # fmt: skip
    best = dict(trials[values.index(max(values))])
    assert best.pop("objective") == max(values)
    assert record["settings"] == {**vars(BASE), **best}
    assert Objective(deep_llava(), tiny_processor(), questions).agreement(VFlowOpt(**record["settings"])) == max(values)
    assert record["model"]["name"] == "some/model"
    assert record["model"]["layers"] == LAYERS
    assert record["model"]["weights"] == weights_digest(deep_llava())
    assert search["data"]["split"] == "val"
    assert search["data"]["ids"] == [question.id for question in questions]
    assert len({json.dumps(trial) for trial in trials}) == 13
    assert {"optuna", "torch", "tokenprune"} <= set(search["versions"])


def test_a_search_of_nothing_begins_no_journal(tmp_path: Path) -> None:
    """A journal would make the next search, with other settings, be refused as a different one."""
    with pytest.raises(SettingError, match="nothing to search"):
        searched(scenes(tmp_path / "scenes"), tmp_path / "settings.json", base=VFlowOpt(keep_ratio=1.0))
    assert not (tmp_path / "settings.journal").exists()


def test_the_same_seed_finds_the_same(tmp_path: Path) -> None:
    questions = scenes(tmp_path / "scenes")
    one, two, other = (searched(questions, tmp_path / f"{n}.json", seed=n // 2) for n in range(3))
    assert one["search"]["trials"] == two["search"]["trials"] != other["search"]["trials"]


def test_more_trials_go_on(tmp_path: Path) -> None:
    questions = scenes(tmp_path / "scenes")
    first = searched(questions, tmp_path / "a.json", trials=2)["search"]["trials"]
    more = searched(questions, tmp_path / "a.json", trials=12)["search"]["trials"]
    assert more[:2] == first
    assert more == searched(questions, tmp_path / "b.json", trials=12)["search"]["trials"]
    assert searched(questions, tmp_path / "a.json", trials=1)["search"]["trials"] == more


@forks
@pytest.mark.slow
def test_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed in a random trial and in one of the Gaussian process. No finished trial is repeated."""
    questions, measure, begun = scenes(tmp_path / "scenes"), Objective.agreement, tmp_path / "begun"
    whole = searched(questions, tmp_path / "whole.json", trials=12)["search"]["trials"]
    finished = 0

    def search() -> None:
        searched(questions, tmp_path / "killed.json", trials=12)

    for nth in (3, 9, 99):
        begun.write_text("")

        def agreement(self: Objective, strategy: VFlowOpt, nth: int = nth) -> float:
            with begun.open("a") as file:
                file.write("trial\n")
            if len(begun.read_text().splitlines()) == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return measure(self, strategy)

        monkeypatch.setattr(Objective, "agreement", agreement)
        process = forked(search)
        assert os.waitpid(process, 0) == (process, 0 if nth == 99 else signal.SIGKILL)
        finished += len(begun.read_text().splitlines()) - (nth != 99)
    assert finished == 12
    assert json.loads((tmp_path / "killed.json").read_text())["search"]["trials"] == whole


def test_half_a_line_is_cut(tmp_path: Path) -> None:
    """A process that dies while it writes leaves one."""
    questions = scenes(tmp_path / "scenes")
    first = searched(questions, tmp_path / "a.json")["search"]["trials"]
    with (tmp_path / "a.journal").open("a") as journal:
        journal.write('{"op_code":5,"worker')
    assert searched(questions, tmp_path / "a.json", trials=4)["search"]["trials"][:3] == first
    assert len(searched(questions, tmp_path / "a.json", trials=5)["search"]["trials"]) == 5


def test_one_process_at_a_time(tmp_path: Path) -> None:
    questions = scenes(tmp_path / "scenes")
    with (tmp_path / "settings.journal").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SettingError, match="another search is writing it"):
            searched(questions, tmp_path / "settings.json")
    assert searched(questions, tmp_path / "settings.json", trials=1)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    questions = scenes(tmp_path / "scenes")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(SettingError, match="to resume from does not"):
        searched(questions, tmp_path / "a.json")
    (tmp_path / "b.journal").write_text("Dear diary,\ntoday\n")
    with pytest.raises(SettingError, match="no journal of a search"):
        searched(questions, tmp_path / "b.json")
    with pytest.raises(SettingError, match=r"write .*c\.json"):
        searched(questions, tmp_path / "c.yaml")
    with pytest.raises(SettingError, match="0 questions finds nothing"):
        searched([], tmp_path / "c.json")


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_state(tmp_path: Path) -> None:
    state: Any = "mean"
    with pytest.raises(SettingError, match=r"unknown state 'mean'\. Known: last_token, mean_pooled"):
        searched(scenes(tmp_path / "scenes"), tmp_path / "settings.json", state=state)


def test_states_that_are_no_numbers(tmp_path: Path) -> None:
    questions = scenes(tmp_path / "scenes")
    weight = deep_llava().model.language_model.norm.weight
    with torch.no_grad():
        kept = weight[0].clone()
        weight[0] = torch.nan
        try:
            with pytest.raises(tokenprune.PruningError, match="rec-0: the model's state has NaN"):
                searched(questions, tmp_path / "settings.json")
        finally:
            weight[0] = kept


def test_calibration_questions_are_drawn_by_seed(tmp_path: Path) -> None:
    questions = scenes(tmp_path)
    drawn = [[question.id for question in sample_questions(questions, 2, seed)] for seed in range(5)]
    assert drawn[0] == [question.id for question in sample_questions(questions, 2, 0)]
    assert len({tuple(ids) for ids in drawn}) > 1
    assert all(ids == sorted(ids) for ids in drawn)
    with pytest.raises(ValueError, match="9 questions requested, but there are only 4; write --questions 4"):
        sample_questions(questions, 9, 0)


def test_the_box_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another device gives different last digits, but a different search range would make the old trials useless."""
    questions = scenes(tmp_path / "scenes")
    first = searched(questions, tmp_path / "settings.json", trials=1)["search"]["box"]
    begin = Objective.__init__

    def elsewhere(self: Objective, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.highest_attention *= 1.000001

    monkeypatch.setattr(Objective, "__init__", elsewhere)
    assert searched(questions, tmp_path / "settings.json", trials=2)["search"]["box"] == first


@pytest.mark.parametrize("path", sorted(SETTINGS.glob("*.json")), ids=lambda path: path.stem)
def test_evals_recognise_the_images(path: Path) -> None:
    file = SettingsFile.read(path)
    assert isinstance(file.make(), VFlowOpt)
    assert len(file.search["trials"]) == 50
    digests = calibrated_on(file)
    assert len(digests) == 28  # the 30 questions are about 28 images
    assert digests <= set(image_digests(load_questions(SCENES, split="val")).values())
