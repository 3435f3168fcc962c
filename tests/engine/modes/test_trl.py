"""TRL's trainers train a pruned model. Runs if `make test-peers` has installed TRL."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.files.evals import sample_image, tiny_processor
from helpers.tiny import tiny_llava

import tokenprune
from tokenprune import FoPru

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

#: Warnings of TRL's own dependencies.
pytestmark = pytest.mark.filterwarnings("ignore")
OPTIONS: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "max_steps": 2,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "learning_rate": 1e-3,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "logging_steps": 1,
    "max_length": None,
}
PRUNED = FoPru(keep_ratio=0.5)


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    """Turn gradients on: VLMEvalKit, which other tests of `make test-peers` import, turns them off for the process."""
    with torch.enable_grad():
        yield


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def rows(**columns: Any) -> Any:
    """Return two examples of different lengths, with an image each."""
    one = {"images": [sample_image()], "prompt": said("user", "w92 w93"), **columns}
    return datasets.Dataset.from_list([one, {**one, "prompt": said("user", "w94")}])


def processor() -> Any:
    """Return a processor with the tokens that begin and end a text, which TRL needs."""
    found = tiny_processor()
    found.tokenizer.bos_token, found.tokenizer.eos_token = "w98", "w99"
    return found


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("whole", [False, True], ids=["answers", "everything"])
def test_supervised_training_gives_the_models_own_loss(whole: bool, tmp_path: Path) -> None:
    model, answer = tiny_llava(), said("assistant", "w95 w96")
    data = rows(completion=answer)
    if whole:
        data = data.map(
            lambda row: {"messages": row["prompt"] + row["completion"]}, remove_columns=["prompt", "completion"]
        )
    trainer = trl.SFTTrainer(
        model, trl.SFTConfig(str(tmp_path), **OPTIONS), train_dataset=data, processing_class=processor()
    )
    batch = trainer.data_collator([data[0], data[1]])
    with tokenprune.patch(model, PRUNED) as handle, torch.no_grad():
        own = float(model(**batch).loss)
        assert float(trainer.compute_loss(model, dict(batch))) == pytest.approx(own, abs=1e-5)
        assert sum(image.n_kept for image in handle.report.images) == sum(i.n_visual for i in handle.report.images) / 2
    with tokenprune.patch(model, PRUNED):
        first, second = losses(trainer)
    assert first != second


def test_preferences(tmp_path: Path) -> None:
    model, chosen, rejected = tiny_llava(), said("assistant", "w95 w96"), said("assistant", "w97")
    reference = copy.deepcopy(model)
    with tokenprune.patch(model, PRUNED), tokenprune.patch(reference, PRUNED):
        trainer = trl.DPOTrainer(
            model,
            ref_model=reference,
            args=trl.DPOConfig(str(tmp_path), **OPTIONS),
            train_dataset=rows(chosen=chosen, rejected=rejected),
            processing_class=processor(),
        )
        first, _ = losses(trainer)
    assert first == pytest.approx(math.log(2), abs=1e-5)  # both models are the same at first


def test_reinforcement_learning(tmp_path: Path) -> None:
    model, lengths = tiny_llava(), list[int]()

    def reward(completions: list[Any], **others: Any) -> list[float]:
        lengths.extend(len(str(one)) for one in completions)
        return [float(number % 2) for number in range(len(completions))]

    options = {name: value for name, value in OPTIONS.items() if name != "max_length"}
    more = {"max_completion_length": 4, "num_generations": 2}
    with tokenprune.patch(model, PRUNED) as handle:
        trainer = trl.GRPOTrainer(
            model,
            reward_funcs=reward,
            args=trl.GRPOConfig(str(tmp_path), **options, **more),
            train_dataset=rows(),
            processing_class=processor(),
        )
        trainer.train()
        assert all(image.n_kept < image.n_visual for image in handle.report.images)
    assert lengths
