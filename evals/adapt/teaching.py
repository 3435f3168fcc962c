"""Self-distillation: a model learns, while it is pruned, what it would answer unpruned and without its adapter.

For each token of an answer it learns the teacher's distribution (Hinton et al., https://arxiv.org/abs/1503.02531, at
temperature 1). That says more than the token alone, and what the teacher is unsure of is not learnt as if it were
right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from tokenprune.evals.adapt.logits import bypassed, is_learnt
from tokenprune.evals.adapt.rows import Row
from tokenprune.evals.models.overrides import in_evaluation_mode

#: Tokens whose probabilities are kept; the others', thousands of times smaller, are summed.
KEPT = 256


@dataclass(frozen=True)
class Distributions:
    """A teacher's distributions of the next token, at places to learn.

    tokens: the most probable ones of each place.
    logs: their log probabilities; if the vocabulary has more tokens, the last column is that of all others together.
    """

    tokens: Int[Tensor, "learnt kept"]
    logs: Float[Tensor, "learnt outcomes"]

    @classmethod
    def of(cls, logits: Float[Tensor, "learnt vocabulary"]) -> Distributions:
        tokens = logits.topk(min(KEPT, logits.shape[1])).indices
        return cls(tokens.int(), _log_probabilities(logits, tokens))

    @classmethod
    def concat(cls, parts: Sequence[Distributions]) -> Distributions:
        return cls(torch.cat([part.tokens for part in parts]), torch.cat([part.logs for part in parts]))

    def split(self, sizes: Sequence[int]) -> list[Distributions]:
        return list(map(Distributions, self.tokens.split(list(sizes)), self.logs.split(list(sizes))))

    def at(self, number: int) -> Distributions:
        """The distribution at one place."""
        return Distributions(self.tokens[number : number + 1], self.logs[number : number + 1])

    def to(self, device: torch.device | str) -> Distributions:
        return Distributions(self.tokens.to(device), self.logs.to(device))

    def divergence(self, logits: Float[Tensor, "learnt vocabulary"]) -> Float[Tensor, ""]:
        """The sum of the places' Kullback-Leibler divergences of a student from the teacher, in nats."""
        own = _log_probabilities(logits, self.tokens.long())
        return kl_div(own, self.logs, reduction="sum", log_target=True)


class Teacher:
    """The model unpruned and without its adapter. Its distributions for a row are computed once, then held in 2 kB of
    main memory per token to learn.

    head: see `tokenprune.evals.adapt.logits.output_layer`. known: the distributions for rows that have been computed.
    """

    def __init__(self, model: PeftModel, head: nn.Module | None, known: Mapping[Row, Distributions]) -> None:
        self._model, self._head = model, head
        self._known = dict(known)

    def distributions(self, batch: Mapping[str, Any], rows: Sequence[Row]) -> Distributions:
        """Its distributions at the labels of `batch`, which was made of `rows`. The model must not be patched."""
        if not all(row in self._known for row in rows):
            distributions = teacher_distributions(self._model, batch, self._head).to("cpu")
            counts = is_learnt(batch["labels"]).sum(1).tolist()
            self._known.update(zip(rows, distributions.split(counts), strict=True))
        return Distributions.concat([self._known[row] for row in rows]).to(batch["labels"].device)


@torch.no_grad()
def teacher_distributions(model: PeftModel, batch: Mapping[str, Any], head: nn.Module | None = None) -> Distributions:
    """Return the model's distributions at the labels, without its adapter. It must not be patched."""
    with in_evaluation_mode(model), model.disable_adapter():
        # The Trainer converts the outer model's outputs to float32, which a head in bfloat16 does not take.
        return Distributions.of(answer_logits(model.get_base_model(), batch, head))


@torch.no_grad()
def answer_logits(model: Any, batch: Mapping[str, Any], head: nn.Module | None) -> Float[Tensor, "learnt vocabulary"]:
    """Return a model's logits of the next token, at the places of the labels."""
    with bypassed(head) as logits_of:
        hidden = model(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False).logits
        return logits_of(hidden[:, :-1][is_learnt(batch["labels"])])


def _log_probabilities(
    logits: Float[Tensor, "learnt vocabulary"], tokens: Int[Tensor, "learnt kept"]
) -> Float[Tensor, "learnt outcomes"]:
    """The log probabilities of these tokens; if there are others, the last column is their total."""
    logs = log_softmax(logits.float(), -1)
    kept = logs.gather(1, tokens)
    if tokens.shape[1] == logits.shape[1]:
        return kept
    others = logs.scatter(1, tokens, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([kept, others], 1)
