"""A training of several epochs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.files.evals import sample_image, saved
from helpers.files.search import deep_llava
from safetensors.torch import load_file
from torch import Tensor

from tokenprune.evals.adapt.adapt import adapt
from tokenprune.evals.adapt.training import PrunedTrainer


def test_it_resumes_with_the_rows_that_were_left_of_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(deep_llava(), tmp_path / "model")
    sample_image().save(tmp_path / "1.png")
    lines = [{"image": "1.png", "question": " ".join(["12"] * n), "answer": f"{n:02d}"} for n in range(1, 8)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options: dict[str, Any] = {"batch": 2, "per_image": 1, "steps": 12, "save_every": 3, "learning_rate": 2e-2}

    def trained(output: Path) -> dict[str, Tensor]:
        return load_file(adapt(model, data=tmp_path, output=output, **options).adapter / "adapter_model.safetensors")

    undisturbed = trained(tmp_path / "undisturbed")
    training_step = PrunedTrainer.training_step

    def dies(trainer: PrunedTrainer, *args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == 10:
            raise KeyboardInterrupt
        return training_step(trainer, *args, **kwargs)

    monkeypatch.setattr(PrunedTrainer, "training_step", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed")
    monkeypatch.undo()
    resumed = trained(tmp_path / "killed")
    assert all(torch.equal(weight, undisturbed[name]) for name, weight in resumed.items())
