"""Questions about the same image in one row of a batch, behind one copy of its visual tokens.

An image takes hundreds of tokens, a question with its answer about twenty. Each question sees only the image and
itself, at the position IDs that it would have alone, so a row teaches what its questions teach one by one, at far lower
cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tokenprune.adapters import adapter_for
from tokenprune.adapters.record import records
from tokenprune.errors import DataError, UnsupportedError
from tokenprune.evals.adapt.examples import Example
from tokenprune.evals.adapt.shrinking import Shrinking, applied
from tokenprune.evals.reading.images import size_of
from tokenprune.evals.tasks.base.question import Question
from tokenprune.prompts import chat_prompt, encode_chat, tokenizer_options
from tokenprune.sequence.masks import FULL
from tokenprune.sequence.packing import IGNORED_LABEL
from tokenprune.strategy import Strategy

PADDING = -1  # the part of a row that belongs to no question
#: Statistics that depend on the question.
ASKED = frozenset({"text_attention", "text_tower"})


@dataclass(frozen=True, eq=False)
class Row:
    """Questions about the same images, and their answers. Rows are compared by identity."""

    examples: tuple[Example, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Grows with the tokens that it takes: the pixels of its images, then the characters of its texts."""
        pixels = sum(width * height for width, height in map(size_of, self.examples[0].question.images))
        return pixels, sum(len(example.question.text) + len(example.answer or "") for example in self.examples)


@dataclass(frozen=True)
class Collator:
    """Makes a batch of rows, padded on the right, with labels for the answers and their ends alone.

    A row is what its questions' prompts have in common, and for each of them the rest of its prompt and its answer. If
    no row has several questions, the batch has a padding mask, like the processor's batches.
    """

    processor: Any
    dtype: torch.dtype

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        batch, parts, positions = self._padded(rows)
        if any(len(row.examples) > 1 for row in rows):
            batch |= {"attention_mask": separation_mask(parts), "position_ids": positions}
        return batch

    def prompts(self, rows: Sequence[Row]) -> tuple[dict[str, Any], Int[Tensor, "batch n"]]:
        """Return a batch without answers or labels, and which part of its row each token belongs to: 0 is what the
        prompts have in common, questions count from 1."""
        asked = [Row(tuple(Example(example.question, None) for example in row.examples)) for row in rows]
        batch, parts, positions = self._padded(asked)
        del batch["labels"]
        return {**batch, "attention_mask": separation_mask(parts), "position_ids": positions}, parts

    def answer(self, text: str) -> list[int]:
        """The tokens of an answer, with its end."""
        tokenizer = self.processor.tokenizer
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else list(ids)

    def _padded(self, rows: Sequence[Row]) -> tuple[dict[str, Any], Int[Tensor, "batch n"], Int[Tensor, "batch n"]]:
        """A batch as if each row had one question; parts and position IDs of its tokens."""
        firsts = [row.examples[0].question for row in rows]
        prompts = self._encoded(firsts)
        sequences = [
            self._sequence(row, ids[real.bool()].tolist())
            for row, ids, real in zip(rows, prompts["input_ids"], prompts["attention_mask"], strict=True)
        ]
        n = max(len(sequence.ids) for sequence in sequences)
        parts = _padded([sequence.parts for sequence in sequences], n, PADDING)
        batch = {name: self._other(value, prompts, n) for name, value in prompts.items()}
        batch["input_ids"] = _padded([sequence.ids for sequence in sequences], n, self._pad)
        batch["labels"] = _padded([sequence.labels for sequence in sequences], n, IGNORED_LABEL)
        batch["attention_mask"] = (parts != PADDING).to(prompts["attention_mask"].dtype)
        return batch, parts, _padded([sequence.positions for sequence in sequences], n, 0)

    def _encoded(self, questions: Sequence[Question]) -> Any:
        """The processor's inputs. UnsupportedError if it cannot put the images in one batch."""
        images, texts = [question.open_images() for question in questions], [question.text for question in questions]
        try:
            return encode_chat(self.processor, images, texts)
        except ValueError as error:
            if len(questions) == 1:
                raise
            raise UnsupportedError(
                f"{type(self.processor).__name__} does not put the images of {len(questions)} rows in one batch "
                f"({str(error).splitlines()[0]}). Write --batch 1 and --accumulate {len(questions)}."
            ) from error

    def _sequence(self, row: Row, first: list[int]) -> RowTokens:
        """A row. `first` is what the processor made of its first prompt: the others differ only at their ends, so their
        images need no processing."""
        ends = [first[-1:]]
        if len(row.examples) > 1:
            n_images = len(row.examples[0].question.images)
            texts = [chat_prompt(self.processor, example.question.text, n_images) for example in row.examples]
            options = tokenizer_options(self.processor, texts[0])
            prompts = self.processor.tokenizer(texts, **options)["input_ids"]
            ends = [prompt[common_prefix_length(prompts) :] for prompt in prompts]
        n = len(first) - len(ends[0])
        sequence = RowTokens(first[:n], [0] * n, list(range(n)), [IGNORED_LABEL] * n)
        for number, (example, end) in enumerate(zip(row.examples, ends, strict=True), start=1):
            sequence.add(number, end, self._learnt(example))
        return sequence

    def _other(self, value: Any, prompts: Mapping[str, Any], n: int) -> Any:
        """An input of the prompts, extended to the rows' length if it runs along the sequence."""
        if isinstance(value, Tensor) and value.shape == prompts["input_ids"].shape:  # types of tokens
            real = prompts["attention_mask"].bool()
            rows = [own[columns].tolist() for own, columns in zip(value, real, strict=True)]
            return _padded(rows, n, self._answer_type)
        return value.to(self.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    def _learnt(self, example: Example) -> list[int]:
        if example.answer is None:
            return []
        ids = self.answer(example.answer)
        if ids in ([], [self.processor.tokenizer.eos_token_id]):
            raise DataError(f"{example.question.id}: an answer without tokens cannot be learnt; leave the question out")
        return ids

    @property
    def _answer_type(self) -> int:
        """The type of an answer's tokens, where tokens have types."""
        typed = {record.processor for record in records().values() if record.types_answers}
        return int(any(base.__name__ in typed for base in type(self.processor).__mro__))

    @property
    def _pad(self) -> int:
        tokenizer = self.processor.tokenizer
        return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


@dataclass
class RowTokens:
    """Token IDs of a row, the part that each belongs to (0 is what the prompts have in common), position IDs and
    labels."""

    ids: list[int]
    parts: list[int]
    positions: list[int]
    labels: list[int]

    def add(self, part: int, prompt: list[int], answer: list[int]) -> None:
        n, first = len(prompt) + len(answer), self.parts.count(0)
        self.ids += [*prompt, *answer]
        self.parts += [part] * n
        self.positions += range(first, first + n)
        self.labels += [*[IGNORED_LABEL] * len(prompt), *answer]


def common_prefix_length(prompts: Sequence[Sequence[int]]) -> int:
    """The length of the prompts' common prefix, short of the last token of each, which an answer follows."""
    columns = zip(*prompts, strict=False)  # stops at the shortest
    alike = next((n for n, column in enumerate(columns) if len(set(column)) > 1), min(map(len, prompts)))
    return min(alike, min(map(len, prompts)) - 1)


def separation_mask(parts: Int[Tensor, "batch n"]) -> Bool[Tensor, "batch 1 n n"]:
    """The causal mask with which every part sees itself and part 0. Padding does, too: sdpa needs a key per query."""
    queries, keys = parts[:, :, None], parts[:, None, :]
    return ((queries == keys) | (keys == 0)).tril()[:, None]


@torch.no_grad()
def why_not_in_one_row(model: Any, collator: Collator, strategy: Strategy | Shrinking, row: Row) -> str | None:
    """Why questions about one image cannot be in one row; None if the loss of `row` is that of its questions alone."""
    adapter, attention = adapter_for(model), model.config.get_text_config()._attn_implementation
    if ASKED & strategy.needs:
        return f"{type(strategy).__name__} reads the question"
    if attention != "sdpa":
        return f"attention {attention!r} takes no mask that keeps them apart; 'sdpa' does"
    if set(adapter.decoder.layers.kinds) != {FULL} or adapter.noncausal:
        return "not all layers of the language model take a mask that keeps them apart"
    together, alone = collator([row]), collator([Row((example,)) for example in row.examples])
    if _along(alone) > {"input_ids", "attention_mask", "labels"}:
        return "the model has token types or its own numbering of tokens"
    if not all(map(torch.equal, _visible_tokens(together), _unpadded(alone))):
        return "its processor and its tokenizer end prompts differently"
    for ratio in (strategy.keep_ratio or 1.0, 1.0):
        with applied(model, strategy, ratio):
            losses = [float(model(**on_device(batch, model)).loss) for batch in (together, alone)]
        if abs(losses[0] - losses[1]) > max(4 * torch.finfo(collator.dtype).eps, 1e-3) * losses[1]:  # rounding
            return f"their loss is then {losses[0]:.3f} instead of {losses[1]:.3f}"
    return None


def on_device(batch: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """A batch on the model's device."""
    device = next(model.parameters()).device
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def _along(batch: Mapping[str, Any]) -> set[str]:
    """The inputs that run along the sequence."""
    shape = batch["input_ids"].shape
    return {name for name, value in batch.items() if isinstance(value, Tensor) and value.shape == shape}


def _visible_tokens(together: Mapping[str, Any]) -> list[Tensor]:
    """The tokens that the last token of each part of the only row attends to."""
    mask, labels = together["attention_mask"][0, 0], together["labels"][0]
    ends = (labels[:-1] != IGNORED_LABEL) & (labels[1:] == IGNORED_LABEL)
    last = [*ends.nonzero()[:, 0].tolist(), len(labels) - 1]
    return [together["input_ids"][0][mask[column]] for column in last]


def _unpadded(alone: Mapping[str, Any]) -> list[Tensor]:
    """The tokens of each row, without padding."""
    rows = zip(alone["input_ids"], alone["attention_mask"], strict=True)
    return [ids[real.bool()] for ids, real in rows]


def _padded(rows: Sequence[Sequence[int]], n: int, value: int) -> Int[Tensor, "batch n"]:
    return torch.tensor([[*row, *[value] * (n - len(row))] for row in rows])
