"""Conversations that reuse a cache: more text, a new image, branches, crops, and a model that is unpatched midway."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close, compact_ids, dropped_columns, oracle_logits
from helpers.families import FAMILIES, present
from helpers.tiny import CACHE, EOS, IMAGE, prompt, tiny_llava
from torch import Tensor

import tokenprune
from tokenprune import FoPru, PruningError, Random
from tokenprune.engine.cache.pruned import index_of

STEPS = 4


@cache
def unpatched() -> Any:
    """Return the same model as the fixture `llava`, but never patched, because the oracle must not be pruned."""
    return tiny_llava("clip")


class Chat:
    """Turns of a conversation through `generate`, each given the whole conversation and the last turn's cache."""

    def __init__(self, model: Any, position_ids: Any = "original", **settings: Any) -> None:
        self.model, self.position_ids, self.settings = model, position_ids, settings
        self.ids = torch.zeros(0)
        self.real = torch.zeros(0)
        self.images: list[Tensor] = []
        self.reports: list[tokenprune.Report] = []
        self.cache: Any = None

    def turn(self, inputs: dict[str, Any], handle: tokenprune.PatchHandle, only_new: bool = False) -> Tensor:
        """Append `inputs`, answer, check the answer's logits, and return them."""
        first = self.cache is None
        ids = inputs["input_ids"] if first else torch.cat([self.ids, inputs["input_ids"]], 1)
        real = inputs["attention_mask"] if first else torch.cat([self.real, inputs["attention_mask"]], 1)
        cached = 0 if first or not only_new else int(self.cache.get_seq_length())
        given = {"input_ids": ids[:, cached:], "attention_mask": real}
        if "pixel_values" in inputs:
            given["pixel_values"] = inputs["pixel_values"]
            self.images.append(inputs["pixel_values"])
        out = self.model.generate(
            **given,
            **({} if first else {CACHE: self.cache}),
            max_new_tokens=STEPS,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            **self.settings,
        )
        self.cache = out[CACHE]
        if "pixel_values" in inputs:
            self.reports.append(handle.report)
        self.ids = torch.cat([ids, out.sequences[:, -STEPS:]], 1)
        self.real = torch.cat([real, torch.ones(len(ids), STEPS).long()], 1)
        assert int(self.cache.get_seq_length()) == self.ids.shape[1] - 1
        logits = torch.stack(out.logits, 1)
        assert_close(logits, self.expected())
        return logits

    def expected(self) -> Tensor:
        dropped = dropped_columns(self.ids, self.reports)
        # The oracle's forward takes images row by row, but they came turn by turn.
        rows = [[p[row] for p in self.images] for row in range(len(self.ids))]
        pixels = torch.stack([image for row in rows for image in row])
        ids = compact_ids(self.real, dropped) if self.position_ids == "compact" else None
        return oracle_logits(unpatched(), self.ids, self.real, pixels, dropped, ids)[:, -STEPS - 1 : -1]


@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize("rows", [1, 2])
def test_text_image_text(llava: Any, rows: int, position_ids: Any) -> None:
    chat = Chat(llava, position_ids)
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25), position_ids=position_ids) as handle:
        chat.turn(prompt([1] * rows, seed=1), handle)
        chat.turn(prompt([0] * rows, seed=2), handle)  # shorter rows are padded in mid-conversation
        chat.turn(prompt([1] * rows, seed=3), handle)
        chat.turn(prompt([0] * rows, seed=4), handle)
    assert [report.n_kept for report in chat.reports] == [9 * rows, 9 * rows]


def test_only_the_new_tokens_and_the_full_mask(llava: Any) -> None:
    chat = Chat(llava)
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        chat.turn(prompt([1], seed=1), handle)
        chat.turn(prompt([0], seed=2), handle, only_new=True)
        chat.turn(prompt([1], seed=3), handle, only_new=True)


def test_a_conversation_that_starts_with_text(llava: Any) -> None:
    chat = Chat(llava)
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        inputs = prompt([0], seed=2)
        out = llava.generate(**inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True)
        assert index_of(out[CACHE]) is None
        chat.ids, chat.cache = out.sequences[:, :-1], out[CACHE]
        chat.real = torch.ones_like(chat.ids)
        chat.turn(prompt([1], seed=3), handle)


def test_the_strategy_may_change_between_turns(llava: Any) -> None:
    chat = Chat(llava)
    with torch.no_grad():
        with tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
            chat.turn(prompt([1], seed=1), handle)
        with tokenprune.patch(llava, "grid", keep_ratio=1.0) as handle:
            chat.turn(prompt([1], seed=2), handle)
        with tokenprune.patch(llava, "random", keep=3) as handle:
            chat.turn(prompt([1], seed=3), handle)
    assert [report.n_kept for report in chat.reports] == [9, 36, 3]


class FirstCompact(Chat):
    """The image of the first turn is pruned with compact IDs, and later ones continue from them."""

    def expected(self) -> Tensor:
        dropped, pixels = dropped_columns(self.ids, self.reports), torch.cat(self.images)
        first = dropped & (torch.arange(dropped.shape[1]) < prompt([1])["input_ids"].shape[1])
        ids = compact_ids(self.real, first)
        return oracle_logits(unpatched(), self.ids, self.real, pixels, dropped, ids)[:, -STEPS - 1 : -1]


def test_the_numbering_may_change_between_turns(llava: Any) -> None:
    chat = FirstCompact(llava)
    with torch.no_grad():
        with tokenprune.patch(llava, FoPru(keep_ratio=0.25), position_ids="compact") as handle:
            chat.turn(prompt([1], seed=1), handle)
        with tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
            chat.turn(prompt([1], seed=2), handle)
            chat.turn(prompt([0], seed=3), handle)


def test_branches_of_a_copied_cache(llava: Any) -> None:
    chat = Chat(llava)
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        chat.turn(prompt([1], seed=1), handle)
        branch = copy.copy(chat)
        branch.cache, branch.images, branch.reports = (copy.deepcopy(chat.cache), [*chat.images], [*chat.reports])
        chat.turn(prompt([0], seed=2), handle)
        branch.turn(prompt([1], seed=3), handle)
        chat.turn(prompt([0], seed=4), handle)


def test_cropping_an_answer_takes_the_turn_back(llava: Any) -> None:
    chat = Chat(llava)
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        chat.turn(prompt([1], seed=1), handle)
        for length in (chat.ids.shape[1] + 2, chat.ids.shape[1] - 1):  # too long
            chat.cache.crop(length)
        chat.cache.crop(-2)
        chat.ids, chat.real = chat.ids[:, :-2], chat.real[:, :-2]
        chat.turn(prompt([0], seed=2), handle)
        # Crops into the prompt's last text tokens, which were not pruned.
        n_answers = chat.ids.shape[1] - 1 - index_of(chat.cache).n_columns  # pyright: ignore[reportOptionalMemberAccess]
        chat.cache.crop(-n_answers - 2)
        chat.ids, chat.real = chat.ids[:, : -n_answers - 2], chat.real[:, : -n_answers - 2]
        chat.turn(prompt([1], seed=3), handle)
        for length in (-20, 2):
            with pytest.raises(PruningError, match="within its last pruned image or before it"):
                chat.cache.crop(length)


def test_reset_forgets_the_pruning(llava: Any) -> None:
    chat = Chat(llava)
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        chat.turn(prompt([1], seed=1), handle)
        chat.cache.reset()
        assert type(chat.cache).__name__ == "DynamicCache"
        assert index_of(chat.cache) is None


def test_an_unpatched_model_refuses_a_pruned_cache(llava: Any) -> None:
    """It would mistake physical slots for columns, and silently answer from the wrong places."""
    chat = Chat(llava)
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        chat.turn(prompt([1], seed=1), handle)
    with pytest.raises(PruningError, match=r"not patched.*tokenprune.patch\(model"):
        llava.generate(input_ids=chat.ids, attention_mask=chat.real, **{CACHE: chat.cache}, max_new_tokens=2)
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        chat.turn(prompt([0], seed=2), handle)  # nothing was written


@pytest.mark.parametrize("name", present("qwen3.5", "lfm2-vl", "inkling2"))
def test_an_unpatched_model_that_refuses_writes_nothing(name: str) -> None:
    """What a layer has added to its state cannot be undone, so the call is refused before."""
    family, model, more = FAMILIES[name], FAMILIES[name].build(), {"input_ids": torch.tensor([[5, 6, 7]])}
    strategy = Random(keep_ratio=0.25)
    with torch.no_grad():
        with tokenprune.patch(model, strategy):
            kept = model(**family.prompt([1]), use_cache=True)[CACHE]
            expected = model(**more, **{CACHE: copy.deepcopy(kept)}).logits
        with pytest.raises(PruningError, match="not patched"):
            model(**more, **{CACHE: kept})
        with tokenprune.patch(model, strategy):
            assert torch.equal(model(**more, **{CACHE: kept}).logits, expected)


def test_a_mask_of_the_physical_length_is_refused(llava: Any) -> None:
    chat = Chat(llava)
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        chat.turn(prompt([1], seed=1), handle)
        with pytest.raises(PruningError, match=r"mask of shape \(1, 12\): .* a mask of shape \(batch, 46\)"):
            llava(input_ids=chat.ids[:, -1:], attention_mask=torch.ones(1, 12).long(), **{CACHE: chat.cache})
        assert int(chat.cache.get_seq_length()) == chat.ids.shape[1] - 1  # the logical length again after the exception
        chat.turn(prompt([0], seed=2), handle)


def test_prompt_lookup(llava: Any) -> None:
    """Assisted decoding crops rejected tokens off the cache at every step."""
    inputs = prompt([1])
    inputs["input_ids"][inputs["input_ids"] != IMAGE] = 7  # repetitive text, so that lookups are found
    settings: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": EOS}
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        plain = llava.generate(**inputs, **settings)
        assert torch.equal(llava.generate(**inputs, **settings, prompt_lookup_num_tokens=3), plain)
        assert handle.report.n_kept == 9
