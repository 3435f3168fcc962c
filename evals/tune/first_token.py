"""How much of the distribution of an answer's first token survives pruning."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LogitsProcessorList

from tokenprune.evals.models.greedy import GREEDY, FirstLogits
from tokenprune.evals.run.batches import DecodedQuestion
from tokenprune.evals.run.costs import visual_costs
from tokenprune.evals.run.runner import Runner
from tokenprune.evals.run.setups import Setup, Unpruned
from tokenprune.evals.storage.answers import Answer


@dataclass(frozen=True)
class FirstTokens(Runner):
    """Asks for first tokens instead of answers.

    An answer's text is its most probable first token; its score is the overlap of that token's distribution with the
    unpruned model's in the same batch.
    """

    _unpruned: list[tuple[Any, Tensor]] = field(default_factory=list, init=False, repr=False, compare=False)

    @torch.inference_mode()
    def _generated(self, batch: Sequence[DecodedQuestion], inputs: Any, setup: Setup, first_id: str) -> list[Answer]:
        unpruned = self._of_unpruned(inputs)
        start = time.perf_counter()
        with setup.patched(self.model) as handle:
            own = unpruned if isinstance(setup, Unpruned) else self._distribution(inputs)
            costs = visual_costs(self.model, self.processor, setup, handle, inputs["input_ids"])
        scores = overlap(own, unpruned).tolist()
        texts = self.processor.batch_decode(own.argmax(-1, keepdim=True))
        seconds = time.perf_counter() - start
        return [
            Answer.to(
                question.question,
                setup.key,
                text=text.strip(),
                score=score,
                **vars(cost),
                seconds=seconds / len(batch),
            )
            for question, text, score, cost in zip(batch, texts, scores, costs, strict=True)
        ]

    def _of_unpruned(self, inputs: Any) -> Tensor:
        """The unpruned model's distributions for a batch; all setups are asked about it before the next begins."""
        if not self._unpruned or self._unpruned[0][0] is not inputs:
            self._unpruned[:] = [(inputs, self._distribution(inputs))]
        return self._unpruned[0][1]

    def _distribution(self, inputs: Any) -> Float[Tensor, "row token"]:
        output = self.model.generate(
            **inputs,
            **GREEDY,
            max_new_tokens=1,
            output_logits=True,
            return_dict_in_generate=True,
            logits_processor=LogitsProcessorList([FirstLogits()]),
        )
        return output.logits[0].float().softmax(-1)


def overlap(one: Float[Tensor, "row token"], other: Float[Tensor, "row token"]) -> Float[Tensor, " row"]:
    """The overlap of two distributions: 1 minus their total variation distance. However tokens are drawn from the two,
    they differ at least that often, and there is a way to draw them that attains it."""
    return (1 - (one - other).abs().sum(-1) / 2).clamp(0, 1)
