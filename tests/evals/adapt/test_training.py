"""Losses, keep ratios and GPUs of a training, without running one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.commands import command
from helpers.files.evals import sample_image
from torch import nn
from transformers import TrainingArguments

import tokenprune
from tokenprune.evals.adapt.adapt import Adapted
from tokenprune.evals.adapt.estimate import timed
from tokenprune.evals.adapt.examples import labelled
from tokenprune.evals.adapt.objective import Objective, Ratios
from tokenprune.evals.adapt.rows import Row
from tokenprune.evals.adapt.training import Hyperparameters, PrunedTrainer, Rows, arguments, highest_rise
from tokenprune.evals.run.questions import load_questions


def step_of(batch: int, folder: Path) -> TrainingArguments:
    """Return the arguments of a training of one step."""
    training = Hyperparameters("decoder", rank=4, steps=1, batch=batch, accumulate=1, learning_rate=1e-4)
    return arguments(folder, training, save_every=1, seed=0, cpu=True, autocast=False)


def test_a_rise_of_the_loss_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even if the loss falls again later. Single high losses and short trainings do not count."""

    def by_step(*losses: float) -> list[tuple[int, float]]:
        return [(44 * (i + 1), loss) for i, loss in enumerate(losses)]

    risen = by_step(2.0, 2.0, *[2.2] * 10, *[1.5] * 10)
    assert highest_rise(risen) == (44 * 4, pytest.approx(2.2))
    assert highest_rise(by_step(*[2.0 - 0.02 * i for i in range(20)])) is None
    assert highest_rise(by_step(2.0, 2.0, 2.19, 1.9, *[1.8] * 18)) is None
    assert highest_rise(by_step(1.0, *[2.0] * 18)) is None
    monkeypatch.setattr("tokenprune.evals.adapt.adapt.adapt", lambda *_, **__: Adapted(tmp_path, risen))
    assert command("adapt", "--model", "any", "--data", tmp_path, "--output", tmp_path, "--learning-rate", 2e-3) == 0
    assert "The loss had risen to 2.200 by step 176: try a --learning-rate below 0.002." in capsys.readouterr().out


def test_ratios_depend_on_the_step_alone() -> None:
    ratios = Ratios(0.1, 0.5, 0.25, seed=3)
    drawn = [ratios.at(step) for step in range(2000)]
    assert drawn[77] == ratios.at(77)
    pruned = [ratio for ratio in drawn if ratio < 1]
    assert 0.2 < drawn.count(1.0) / 2000 < 0.3
    assert 0.1 <= min(pruned) < 0.11 < 0.45 < max(pruned) <= 0.5
    assert sorted(pruned)[len(pruned) // 2] == pytest.approx((0.1 * 0.5) ** 0.5, rel=0.1)  # uniform in the logarithm


def test_one_of_several_gpus_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Trainer would copy the model to all GPUs that it may use, and copies would share the hooks of a patch."""
    own = TrainingArguments.__post_init__

    def with_two_gpus(self: TrainingArguments) -> None:
        own(self)
        self._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_two_gpus)
    assert step_of(1, tmp_path).n_gpu == 1


def test_rows_of_similar_size_share_a_batch(tmp_path: Path) -> None:
    sample_image().save(tmp_path / "1.png")
    lines = [{"image": "1.png", "question": " ".join(["12"] * (n % 10 + 1)), "answer": "05"} for n in range(40)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = Rows([Row((one,)) for one in labelled(load_questions(tmp_path))])
    objective = Objective(tokenprune.FoPru(keep_ratio=0.1), Ratios(0.1, 0.5, 0.25), labels=True, head=None)
    trainer = PrunedTrainer(
        nn.Linear(1, 1), step_of(4, tmp_path), data_collator=list, train_dataset=rows, objective=objective
    )
    batches = [[row.size[1] for row in batch] for batch in trainer.get_train_dataloader()]
    assert sorted(size for batch in batches for size in batch) == sorted(rows[n].size[1] for n in range(40))
    spread = sum(max(batch) - min(batch) for batch in batches) / len(batches)
    assert spread < 12  # characters; for random batches it is about 16


def test_a_time_has_nothing_of_what_was_begun_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU computes after the call that began it has returned."""
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append("finished"))
    timed(lambda: order.append("run"), torch.device("cuda"))
    assert order == ["finished", "run", "finished"]
