"""What a setup costs, relative to the unpruned model, on a few questions asked one by one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any

import torch

from tokenprune.evals.bench.cases import count_flops
from tokenprune.evals.bench.measuring import ttft_ratios
from tokenprune.evals.run.batches import DecodedQuestion, encode_batch
from tokenprune.evals.run.costs import kv_cache_bytes
from tokenprune.evals.run.setups import Setup, Unpruned
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tune.settings import Cost

N_QUESTIONS = 4
ROUNDS = 3


class CostMeter:
    """Measures setups on `questions`."""

    def __init__(self, model: Any, processor: Any, questions: Sequence[Question], kind: Cost) -> None:
        self._model, self._kind = model, kind
        decoded = [DecodedQuestion.of(question, processor) for question in questions]
        self._inputs = [encode_batch(model, processor, [question], Unpruned()) for question in decoded]
        self._unpruned = [] if kind == "ttft" else self._amounts(Unpruned())

    def relative(self, setup: Setup) -> float:
        """The cost of a setup as a fraction of the unpruned model's, averaged over the questions."""
        if self._kind == "ttft":
            self._amounts(setup)  # a first call allocates
            return fmean(ttft_ratios(self._model, inputs, [setup], ROUNDS)[0] for inputs in self._inputs)
        return fmean(own / whole for own, whole in zip(self._amounts(setup), self._unpruned, strict=True))

    @torch.inference_mode()
    def _amounts(self, setup: Setup) -> list[int]:
        with setup.patched(self._model):
            if self._kind == "flops":
                return [count_flops(self._model, partial(self._prefill, inputs)) for inputs in self._inputs]
            return [kv_cache_bytes(self._model, inputs) for inputs in self._inputs]

    def _prefill(self, inputs: Any) -> Any:
        return self._model(**inputs, use_cache=True, logits_to_keep=1)
