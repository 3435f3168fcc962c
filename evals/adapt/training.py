"""transformers' Trainer on a model that is patched again at every step, with a keep ratio drawn for that step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from tokenprune.errors import SettingError
from tokenprune.evals.adapt.objective import Objective
from tokenprune.evals.adapt.rows import Row
from tokenprune.evals.adapt.settings import Part
from tokenprune.evals.adapt.teaching import Distributions, Teacher

STATE = "trainer_state.json"
#: Batches and keep ratios differ, so a tenth's mean loss varies by a few per cent even where nothing is learned.
RISE = 1.05
#: The key, in a batch without labels, of the rows it was made of.
ROWS = "rows"


@dataclass(frozen=True)
class Hyperparameters:
    """A training's settings, besides its objective.

    part, rank: what is trained, see `tokenprune.evals.adapt.lora`. steps: of the optimiser, each after `accumulate`
    forwards of `batch` rows. learning_rate: the highest, after warming up.
    """

    part: Part
    rank: int
    steps: int
    batch: int
    accumulate: int
    learning_rate: float

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise SettingError(
                f"learning_rate={self.learning_rate:g} is not a positive number; write 2e-4, for example."
            )

    @property
    def rows_per_step(self) -> int:
        return self.batch * self.accumulate


class Rows(Dataset[Row]):
    """A list that a Trainer takes."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]

    @property
    def ranks(self) -> list[int]:
        """How many rows are smaller than each."""
        sizes = [row.size for row in self._rows]
        first = {size: rank for rank, size in reversed(list(enumerate(sorted(sizes))))}
        return [first[size] for size in sizes]


class BySize(LengthGroupedSampler):
    """Draws rows of similar size one after the other. An epoch's order depends only on the seed and its number, which
    `epoch` sets when it begins, so a resumed training sees the rows that were left."""

    def __init__(self, per_step: int, ranks: list[int], seed: int, epoch: Callable[[], int]) -> None:
        super().__init__(per_step, lengths=ranks)
        self._seed, self._epoch = seed, epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self._seed + self._epoch())
        return super().__iter__()


class PrunedTrainer(Trainer):
    """Prunes the model at the step's keep ratio, in forward and backward. Rows of similar size share a batch, to keep
    padding low."""

    def __init__(
        self, *args: Any, objective: Objective, known: Mapping[Row, Distributions] | None = None, **kwargs: Any
    ) -> None:
        """known: see `Teacher`."""
        super().__init__(*args, **kwargs)
        own: Any = self.model
        self._objective = objective
        self._teacher = None if objective.labels else Teacher(own, objective.head, known or {})
        if not objective.labels:
            collator = self.data_collator
            self.data_collator = lambda rows: {**collator(rows), ROWS: tuple(rows)}

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> BySize:
        own: Any = self.train_dataset
        per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return BySize(per_step, own.ranks, self.args.seed, lambda: int(self.state.epoch or 0))

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        own: Any = self.model
        ratio = self._objective.ratios.at(self.state.global_step)
        targets = None
        if self._teacher is not None:
            rows = inputs.pop(ROWS)
            inputs = self._prepare_inputs(inputs)
            targets = self._teacher.distributions(inputs, rows)
        with self._objective.applied_to(own, ratio, targets):
            return super().training_step(model, inputs, *args, **kwargs)


def arguments(
    folder: Path, training: Hyperparameters, *, save_every: int, seed: int, cpu: bool, autocast: bool
) -> TrainingArguments:
    """Return the Trainer's arguments.

    folder: of the checkpoints. save_every: steps from one to the next. autocast: multiply in bfloat16, even with the
        trained weights, which are kept in float32.
    """
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=training.steps,
        per_device_train_batch_size=training.batch,
        gradient_accumulation_steps=training.accumulate,
        learning_rate=training.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, training.steps // 20),
        weight_decay=0.0,
        logging_steps=max(1, training.steps // 50),
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=2,
        remove_unused_columns=False,
        report_to=[],
        seed=seed,
        data_seed=seed,
        use_cpu=cpu,
        bf16=autocast,
        dataloader_pin_memory=not cpu,
    )
    if (
        arguments.n_gpu > 1
    ):  # the Trainer would copy the model to all of them, and the copies would share the patch's hooks
        arguments._n_gpu = 1
    return arguments


def highest_rise(losses: Sequence[tuple[int, float]]) -> tuple[int, float] | None:
    """Return where the loss was highest, if clearly above its start: the last step of a tenth of the training, and that
    tenth's mean loss. None otherwise, or if fewer than twenty losses were logged."""
    size = len(losses) // 10
    if size < 2:
        return None
    tenths = [losses[begin : begin + size] for begin in range(0, size * 10, size)]
    means = [(tenth[-1][0], fmean(loss for _, loss in tenth)) for tenth in tenths]
    step, highest = max(means, key=lambda mean: mean[1])
    return (step, highest) if highest > RISE * means[0][1] else None


def last_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint: a killed process may leave an incomplete one. The Trainer writes its state last."""
    steps = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")}
    numbered = (path for path, step in steps.items() if step.isdecimal())  # others are a user's copies
    latest = sorted(numbered, key=lambda path: int(steps[path]), reverse=True)
    return next((path for path in latest if _complete(path)), None)


def _complete(checkpoint: Path) -> bool:
    try:
        return "global_step" in json.loads((checkpoint / STATE).read_text())
    except (OSError, ValueError):
        return False
