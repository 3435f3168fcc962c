"""Generate the unpruned model's answers to several questions about one image at once.

A batch has the rows of a training (`tokenprune.evals.adapt.rows`), without answers. So an image is encoded and read
once for all its questions, and each generation step adds a token to all their answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from tokenprune.evals.adapt.examples import Example
from tokenprune.evals.adapt.logits import bypassed
from tokenprune.evals.adapt.rows import Collator, Row, on_device
from tokenprune.evals.adapt.teaching import Distributions, answer_logits
from tokenprune.evals.models.cache import cache_in
from tokenprune.evals.models.greedy import check_logits, decisive_settings


@dataclass(frozen=True)
class UnprunedAnswer:
    """The unpruned model's answer to a question.

    distributions: those of the tokens to learn; None if these differ from the generated ones, because the answer was
        cut off or the tokenizer splits the same text differently.
    """

    text: str
    distributions: Distributions | None


@dataclass(frozen=True)
class RowGenerator:
    """Generates answers of a model that is neither patched nor in training mode.

    head: see `tokenprune.evals.adapt.logits.output_layer`.
    """

    model: Any
    collator: Collator
    head: nn.Module | None

    @torch.inference_mode()
    def generate(self, rows: Sequence[Row]) -> list[list[UnprunedAnswer]]:
        """Return the answers to each row's questions: the most probable tokens, as many as the question allows.

        UnsupportedError for NaN instead of logits.
        """
        batch, parts = self.collator.prompts(rows)
        batch, parts = on_device(batch, self.model), parts.to(self.model.device)
        questions = torch.arange(1, int(parts.max()) + 1, device=parts.device)
        asked = parts[:, None] == questions[:, None]  # (row, question, column)
        last = (asked * torch.arange(parts.shape[1], device=parts.device)).amax(-1)
        positions = batch["position_ids"].gather(1, last)
        done, ends = ~asked.any(-1), torch.tensor(self._ends, device=parts.device)
        longest = max(example.question.max_new_tokens for row in rows for example in row.examples)
        tokens, distributions = list[Tensor](), list[Distributions]()
        with bypassed(self.head) as logits_of:
            output = self.model(**batch, use_cache=True)
            logits = logits_of(output.logits.take_along_dim(last[..., None], 1))
            check_logits(logits)
            while True:
                tokens.append(logits.argmax(-1))
                distributions.append(Distributions.of(logits.flatten(0, 1)).to("cpu"))
                done |= torch.isin(tokens[-1], ends)
                if len(tokens) == longest or bool(done.all()):
                    break
                parts, positions = torch.cat([parts, questions.expand(len(rows), -1)], 1), positions + 1
                output = self.model(
                    input_ids=tokens[-1],
                    attention_mask=_visible(questions, parts),
                    position_ids=positions,
                    use_cache=True,
                    **dict([cache_in(output)]),
                )
                logits = logits_of(output.logits)
        steps = torch.stack(tokens, -1).tolist()

        def answer(row: int, question: int, example: Example) -> UnprunedAnswer:
            place = row * len(questions) + question
            return self._answer(example, steps[row][question], [part.at(place) for part in distributions])

        return [
            [answer(row, question, example) for question, example in enumerate(of_row.examples)]
            for row, of_row in enumerate(rows)
        ]

    @torch.inference_mode()
    def why_not_at_once(self, row: Row) -> str | None:
        """Why questions about one image cannot be answered at once; None if the answers to those of `row` have the same
        distributions without a cache."""
        if changed := decisive_settings(self.model.generation_config.to_diff_dict()):
            name, value = next(iter(changed.items()))
            return f"its generation config has {name}={value}"
        answers = [
            (Example(example.question, answer.text), answer.distributions)
            for example, answer in zip(row.examples, self.generate([row])[0], strict=True)
            if answer.text and answer.distributions is not None
        ]
        if not answers:
            return None
        batch = on_device(self.collator([Row(tuple(example for example, _ in answers))]), self.model)
        logits = answer_logits(self.model, batch, self.head)
        cached = Distributions.concat([part for _, part in answers if part is not None]).to(logits.device)
        divergence = float(cached.divergence(logits)) / len(logits)
        if divergence > max(1e-5, 2 * torch.finfo(self.collator.dtype).eps):  # rounding
            return f"with a cache, the model then answers something else (by {divergence:.2g} nats)"
        return None

    def _answer(
        self, example: Example, tokens: Sequence[int], distributions: Sequence[Distributions]
    ) -> UnprunedAnswer:
        """An answer. tokens, distributions: of all steps, including those after its end."""
        most = example.question.max_new_tokens
        n = next((n for n, token in enumerate(tokens[:most], start=1) if token in self._ends), most)
        text = self.collator.processor.decode(tokens[:n], skip_special_tokens=True).strip()
        learnt = self.collator.answer(text)
        same = len(learnt) <= n and tokens[: len(learnt)] == learnt
        return UnprunedAnswer(text, Distributions.concat(distributions[: len(learnt)]) if same else None)

    @property
    def _ends(self) -> list[int]:
        """The tokens that end an answer."""
        ids = self.model.generation_config.eos_token_id
        return ids if isinstance(ids, list) else [] if ids is None else [ids]


def _visible(questions: Int[Tensor, " question"], parts: Int[Tensor, "row n"]) -> Bool[Tensor, "row 1 question n"]:
    """The mask with which the next token of each question sees what its row has in common, and its own part."""
    keys = parts[:, None, None]
    return (keys == 0) | (keys == questions[:, None])
