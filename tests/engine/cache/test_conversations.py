"""Conversations that reuse a cache: more text, new images, crops, and another strategy or numbering in each turn."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from engine.stages.test_skipping import Skipping, StagedAndSkipping
from engine.stages.test_stage_selections import Folding
from engine.test_masks import CASES
from engine.test_masks import model_of as windowed
from engine.test_position_ids import Varied
from helpers.contract.conversation import Conversation
from helpers.families import FAMILIES, present
from helpers.families.base import RECENT
from helpers.models.staged import FAMILY, Staged
from helpers.tiny import CACHE
from transformers import StaticCache

import tokenprune
from tokenprune import AveragePooling, FoPru, Grid, PruningError, Random, Strategy
from tokenprune.engine.cache.pruned import index_of

LLAVA, QUARTER = FAMILIES["llava-clip"], FoPru(keep_ratio=0.25)
POOLED, PLAIN = AveragePooling(keep_ratio=0.3, attention_bias="size"), AveragePooling(keep_ratio=0.3)
STAGED = [Staged(), Staged(ragged=True), Folding(), Skipping(), Skipping(keep_ratio=1.0), StagedAndSkipping()]


@cache
def deep() -> Any:
    return FAMILY.build()


@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize(("strategy", "rows"), [(QUARTER, 1), (QUARTER, 2), (Varied(), 2)])
def test_text_image_text(llava: Any, strategy: Strategy, rows: int, position_ids: Any) -> None:
    talk = Conversation(LLAVA, llava, position_ids)
    talk.turn(strategy, 1, seed=1, rows=rows)
    talk.turn(strategy, 0, seed=2, rows=rows)  # shorter rows are padded in mid-conversation
    talk.turn(strategy, 1, seed=3, rows=rows)
    talk.turn(strategy, 0, seed=4, rows=rows)
    if isinstance(strategy, Varied):
        assert all(len({image.n_kept for image in report.images}) > 1 for report in talk.reports)


@pytest.mark.parametrize("strategy", STAGED, ids=str)
@pytest.mark.parametrize("first", [0, 1])
def test_layers_that_hold_different_tokens(strategy: Strategy, first: int) -> None:
    """Text or an image first, an image in a later turn, and a crop of the last answer."""
    talk = Conversation(FAMILY, deep())
    talk.turn(strategy, first, seed=5, texts=[4, 4])
    talk.turn(strategy, 0, seed=6, texts=[4, 4])
    talk.turn(strategy, 1, seed=7, texts=[4, 4])
    talk.crop(3)
    talk.turn(strategy, 0, seed=8, texts=[4, 4])


@pytest.mark.parametrize("strategies", [(POOLED, POOLED), (PLAIN, POOLED), (POOLED, PLAIN)])
def test_tokens_have_the_bias_of_their_own_turn(llava: Any, strategies: tuple[Strategy, Strategy]) -> None:
    talk = Conversation(LLAVA, llava)
    for seed, strategy in enumerate(strategies):
        talk.turn(strategy, 1, seed)


@pytest.mark.parametrize("name", [name for name in CASES if name != "paligemma"])  # has no causal prompt
def test_windows(name: str) -> None:
    talk = Conversation(CASES[name], windowed(name))
    talk.turn(Random(keep_ratio=0.4, seed=1), 1, 1, texts=[4, 4])
    talk.turn(Random(keep_ratio=0.4, seed=2), 0, 2, texts=[9, 9])
    talk.turn(Random(keep_ratio=0.4, seed=3), int(RECENT or not name.startswith("gemma3")), 3, texts=[3, 3])
    talk.turn(Random(keep_ratio=0.4, seed=4), 0, 4, texts=[2, 4])


@pytest.mark.parametrize("name", ["mistral-8", "qwen2-8", *(["gemma3-window"] if RECENT else [])])
def test_windows_that_text_has_filled(name: str) -> None:
    """The first image comes after an unpruned cache."""
    talk = Conversation(CASES[name], windowed(name))
    talk.turn(Random(keep_ratio=0.4), 0, 1, texts=[15, 15])
    talk.turn(Random(keep_ratio=0.4), 1, 2, texts=[4, 4])
    talk.turn(Random(keep_ratio=0.4), 0, 3, texts=[4, 4])


# Gemma 3's masks are wrong there even without pruning.
@pytest.mark.parametrize("name", ["mistral-8", "qwen2-8", "llava-clip"])
@pytest.mark.parametrize("n_images", [0, 1])
def test_a_static_cache(name: str, n_images: int) -> None:
    """It can be reused while it has room."""
    family, model = (CASES[name], windowed(name)) if name in CASES else (LLAVA, LLAVA.build())
    room = StaticCache(config=model.config.get_text_config(), max_cache_len=256)
    talk, strategy = Conversation(family, model, cache=room), Varied() if family is LLAVA else Random(keep_ratio=0.4)
    talk.turn(strategy, n_images, 1, texts=[15, 15])
    talk.turn(strategy, 1, 2, texts=[4, 4])
    talk.turn(strategy, 0, 3, texts=[4, 4])
    assert talk.cache is room


def test_only_the_new_tokens_and_the_full_mask(llava: Any) -> None:
    talk = Conversation(LLAVA, llava)
    talk.turn(QUARTER, 1, seed=1, rows=1)
    talk.turn(QUARTER, 0, seed=2, rows=1, only_new=True)
    talk.turn(QUARTER, 1, seed=3, rows=1, only_new=True)


def test_strategy_and_numbering_may_change_between_turns(llava: Any) -> None:
    talk = Conversation(LLAVA, llava, "compact")
    talk.turn(QUARTER, 1, seed=1, rows=1)
    talk.position_ids = "original"
    talk.turn(Grid(keep_ratio=1.0), 1, seed=2, rows=1)
    talk.turn(Random(keep=3), 1, seed=3, rows=1)
    talk.turn(Random(keep=3), 0, seed=4, rows=1)
    assert [report.n_kept for report in talk.reports] == [9, 36, 3]


def test_branches_of_a_copied_cache(llava: Any) -> None:
    talk = Conversation(LLAVA, llava)
    talk.turn(QUARTER, 1, seed=1, rows=1)
    branch = copy.deepcopy({key: value for key, value in vars(talk).items() if key not in ("model", "family")})
    other = Conversation(LLAVA, llava)
    vars(other).update(branch)
    talk.turn(QUARTER, 0, seed=2, rows=1)
    other.turn(QUARTER, 1, seed=3, rows=1)
    talk.turn(QUARTER, 0, seed=4, rows=1)


def test_cropping_an_answer_takes_the_turn_back(llava: Any) -> None:
    talk = Conversation(LLAVA, llava)
    talk.turn(QUARTER, 1, seed=1, rows=1)
    for too_long in (talk.length + 2, talk.length - 1):
        talk.cache.crop(too_long)
    talk.crop(2)
    talk.turn(QUARTER, 0, seed=2, rows=1)
    talk.crop(talk.length + 1 - index_of(talk.cache).n_columns)  # into the prompt's last text tokens
    talk.turn(QUARTER, 1, seed=3, rows=1)
    for length in (-20, 2):
        with pytest.raises(PruningError, match="within its last pruned image or before it"):
            talk.cache.crop(length)


def test_a_conversation_that_starts_with_text_has_a_plain_cache(llava: Any) -> None:
    talk = Conversation(LLAVA, llava)
    talk.turn(QUARTER, 0, seed=2, rows=1)
    assert index_of(talk.cache) is None
    talk.turn(QUARTER, 1, seed=3, rows=1)
    talk.cache.reset()
    assert type(talk.cache).__name__ == "DynamicCache"
    assert index_of(talk.cache) is None


def test_a_mask_of_the_physical_length_is_refused(llava: Any) -> None:
    talk = Conversation(LLAVA, llava)
    talk.turn(QUARTER, 1, seed=1, rows=1)
    given = {"input_ids": torch.tensor([[5]]), "attention_mask": torch.ones(1, 12).long(), CACHE: talk.cache}
    said = r"mask of shape \(1, 12\): .* a mask of shape \(batch, 46\)"
    with torch.no_grad(), tokenprune.patch(llava, QUARTER), pytest.raises(PruningError, match=said):
        llava(**given)
    talk.turn(QUARTER, 0, seed=2, rows=1)


def test_an_unpatched_model_refuses_a_pruned_cache(llava: Any) -> None:
    """It would mistake physical slots for columns, and silently answer from the wrong places."""
    talk = Conversation(LLAVA, llava)
    talk.turn(QUARTER, 1, seed=1, rows=1)
    with pytest.raises(PruningError, match=r"not patched.*tokenprune.patch\(model"):
        llava.generate(**talk.whole, **{CACHE: talk.cache}, max_new_tokens=2)
    talk.turn(QUARTER, 0, seed=2, rows=1)  # nothing was written


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
