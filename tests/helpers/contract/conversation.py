"""Conversations that reuse a cache, each turn checked against the exact oracle."""

from typing import Any

import torch

import tokenprune
from helpers.contract.oracle import as_reported, assert_close, dropped_columns
from helpers.families import Family
from helpers.families.base import CACHE
from tokenprune.strategy import StagedStrategy

STEPS = 4


class Conversation:
    """Turns through `generate`, each given the whole conversation, or only what is new, and the cache so far.

    position_ids: may be changed between turns; those of earlier turns stay.
    """

    def __init__(self, family: Family, model: Any, position_ids: Any = "original", cache: Any = None) -> None:
        self.family, self.model, self.position_ids, self.cache = family, model, position_ids, cache
        self.whole: dict[str, Any] = {}
        self.images: list[list[Any]] = []  # of each row
        self.reports: list[tokenprune.Report] = []
        self.biased: list[tokenprune.Report] = []  # those of strategies with an attention bias
        self.compact: list[bool] = []  # of every column, whether its turn had compact position IDs

    def turn(
        self,
        strategy: tokenprune.Strategy,
        n_images: int,
        seed: int,
        texts: list[int] | None = None,
        rows: int = 2,
        only_new: bool = False,
    ) -> None:
        """Append a prompt with `n_images` images in each row, answer it, and check the answer's logits."""
        inputs = self.family.prompt([n_images] * rows, texts=texts, seed=seed)
        along = ["input_ids", "attention_mask", *self.family.token_types(inputs["input_ids"])]
        given = {**inputs, **{key: torch.cat([self.whole[key], inputs[key]], 1) for key in along if self.whole}}
        new = {"input_ids": given["input_ids"][:, self.cache.get_seq_length() :]} if only_new else {}
        settings: dict[str, Any] = {} if self.cache is None else {CACHE: self.cache}
        with torch.no_grad(), tokenprune.patch(self.model, strategy, position_ids=self.position_ids) as handle:
            out = self.model.generate(
                **{**given, **new, **settings},
                max_new_tokens=STEPS,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
            if n_images:
                self.reports.append(handle.report)
                self.biased += [handle.report] if getattr(strategy, "attention_bias", None) else []
        whole = self.family.continued(given, out.sequences[:, -STEPS:])
        self.cache, self.whole = out[CACHE], {key: whole[key] for key in along}
        self.images = self.images or [[] for _ in range(rows)]
        for i, image in enumerate(inputs.images):
            self.images[i // n_images].append(image)
        self.compact += [self.position_ids == "compact"] * (self.length - len(self.compact))
        assert int(self.cache.get_seq_length()) == self.length - 1
        skips = isinstance(strategy, StagedStrategy) and strategy.skipped_layers(len(self.cache.layers))
        if self.reports or not skips:  # only a report tells the oracle which layers are skipped
            assert_close(torch.stack(out.logits, 1), self.expected()[:, -STEPS - 1 : -1])

    @property
    def length(self) -> int:
        return self.whole["input_ids"].shape[1]

    def expected(self) -> torch.Tensor:
        ids = self.whole["input_ids"]
        dropped = dropped_columns(ids, self.reports)
        images = self.family.join([one for row in self.images for one in row], [len(row) for row in self.images])
        renumbered = dropped & torch.tensor(self.compact)
        numbers = self.family.compact_ids(self.model, self.whole, renumbered) if any(self.compact) else None
        with as_reported(self.model, ids, self.reports, self.biased):
            return self.family.oracle(self.model, {**self.whole, **images}, dropped, numbers)

    def crop(self, n: int) -> None:
        """Take the last columns back."""
        self.cache.crop(-n)
        self.whole = {key: value[:, :-n] for key, value in self.whole.items()}
        self.compact = self.compact[:-n]
