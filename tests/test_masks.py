"""Attention that is not plainly causal: sliding windows, picture blocks, prefixes. Windows count columns, not slots."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from families import FAMILIES, Family
from families.base import CACHE, additive, decoder
from families.llava import Llava
from modes import MODES
from oracle import assert_close, dropped_columns
from torch import Tensor
from transformers import Gemma2Config, MistralConfig, Qwen2Config

import tokenprune
from tokenprune import Random

STEPS = 4
PER_ROW = {"single": [1], "padded": [1, 2]}


class Windowed(Llava):
    """A LLaVA whose language model has a sliding window: in all layers, or in one of two."""

    def __init__(self, backbone: str, window: int) -> None:
        super().__init__(f"{backbone}-{window}")
        self.backbone, self.window = backbone, window

    def config(self) -> Any:
        config, window = super().config(), {"sliding_window": self.window}
        if self.backbone == "mistral":
            config.text_config = MistralConfig(**decoder(), **window)
        elif self.backbone == "qwen2":
            config.text_config = Qwen2Config(**decoder(), **window, use_sliding_window=True, max_window_layers=1)
        else:
            config.text_config = Gemma2Config(**decoder(head_dim=8), **window, query_pre_attn_scalar=8)
        return config

    def mask(self, inputs: dict[str, Any], dropped: Tensor) -> Any:
        keys = inputs["attention_mask"].bool() & ~dropped
        seen, columns = self.seen(inputs), torch.arange(dropped.shape[1])
        sliding = additive(seen & (columns[:, None] - columns < self.window), keys)
        if self.backbone == "mistral":
            return sliding
        return {"full_attention": additive(seen, keys), "sliding_attention": sliding}


#: A prompt has 42 columns or more, of which 20 or more are left: the windows end before and behind the pruned prompt.
WINDOWED = {
    f.name: f for f in (Windowed("mistral", 8), Windowed("mistral", 30), Windowed("qwen2", 8), Windowed("gemma2", 8))
}
CASES: dict[str, Family] = {**WINDOWED, **{name: FAMILIES[name] for name in ("gemma3", "gemma3-window", "paligemma")}}


@cache
def model_of(name: str, attention: str = "sdpa") -> Any:
    if name.startswith("gemma2"):
        attention = "eager"  # transformers has no sdpa for it
    return CASES[name].build(attention)


def strategy(seed: int = 0) -> Random:
    return Random(keep_ratio=0.4, seed=seed)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", PER_ROW)
@pytest.mark.parametrize("name", WINDOWED)
def test_dropping_equals_masking(name: str, batch: str, mode: str) -> None:
    family, model, per_row = CASES[name], model_of(name), PER_ROW[batch]
    with torch.no_grad(), tokenprune.patch(model, strategy()) as handle:
        run = MODES[mode](family, model, family.prompt(per_row), per_row)
    dropped = dropped_columns(run.whole(family)["input_ids"], [handle.report])
    assert dropped.any()
    assert_close(run.logits, run.expected(family, model, dropped))


@pytest.mark.parametrize("mode", ["greedy", "static"])
@pytest.mark.parametrize("name", CASES)
def test_masks_that_are_added(name: str, mode: str) -> None:
    """Eager attention adds its masks, sdpa takes bool ones."""
    family, model, per_row = CASES[name], model_of(name, "eager"), [1, 2]
    if mode in family.cannot:
        pytest.skip("transformers does not do it right")
    with torch.no_grad(), tokenprune.patch(model, strategy()) as handle:
        run = MODES[mode](family, model, family.prompt(per_row), per_row)
    dropped = dropped_columns(run.whole(family)["input_ids"], [handle.report])
    assert_close(run.logits, run.expected(family, model, dropped))


@pytest.mark.parametrize("name", WINDOWED)
def test_beams(name: str) -> None:
    """Each returned score must be the oracle's log-probability."""
    family, model, per_row, n = CASES[name], model_of(name), [1, 2], 3
    inputs = family.prompt(per_row)
    search = {"num_beams": n, "num_return_sequences": n, "do_sample": False, "max_new_tokens": STEPS}
    with torch.no_grad(), tokenprune.patch(model, strategy()) as handle:
        out = model.generate(**inputs, **search, return_dict_in_generate=True, output_scores=True)
    answers = out.sequences[:, -STEPS:]
    whole = family.continued(family.repeated(inputs, n, per_row), answers)
    logits = family.oracle(model, whole, dropped_columns(whole["input_ids"], [handle.report]))[:, -STEPS - 1 : -1]
    scores = logits.log_softmax(-1).gather(2, answers[..., None])[..., 0].mean(1)
    assert_close(out.sequences_scores, scores)


class Talk:
    """Turns of a conversation through `generate`, each given all of it and the cache, and checked."""

    def __init__(self, name: str) -> None:
        self.family, self.model, self.cache = CASES[name], model_of(name), None
        self.reports: list[tokenprune.Report] = []
        self.whole: dict[str, Any] = {}
        self.pictures: list[list[Any]] = [[], []]  # of each row

    def turn(self, n_images: int, seed: int, texts: list[int], **settings: Any) -> None:
        inputs = self.family.prompt([n_images] * 2, texts=texts, seed=seed)
        along = ["input_ids", "attention_mask", *self.family.token_types(inputs["input_ids"])]
        given = {**inputs, **{key: torch.cat([self.whole[key], inputs[key]], 1) for key in along if self.whole}}
        with torch.no_grad(), tokenprune.patch(self.model, strategy(seed)) as handle:
            out = self.model.generate(
                **given,
                **({} if self.cache is None else {CACHE: self.cache}),
                max_new_tokens=STEPS,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
                **settings,
            )
            if n_images:
                self.reports.append(handle.report)
        self.cache = out[CACHE]
        for i, picture in enumerate(self.family.split(inputs) if n_images else []):
            self.pictures[i // n_images].append(picture)
        whole = self.family.continued(given, out.sequences[:, -STEPS:])
        self.whole = {key: whole[key] for key in along}
        pictures = self.family.join([*self.pictures[0], *self.pictures[1]], [len(row) for row in self.pictures])
        dropped = dropped_columns(whole["input_ids"], self.reports)
        logits = self.family.oracle(self.model, {**self.whole, **pictures}, dropped)
        assert_close(torch.stack(out.logits, 1), logits[:, -STEPS - 1 : -1])


@pytest.mark.parametrize("name", [name for name in CASES if name != "paligemma"])  # which sees its first prompt as one
def test_conversations(name: str) -> None:
    talk = Talk(name)
    talk.turn(1, 1, texts=[4, 4])
    talk.turn(0, 2, texts=[9, 9])
    talk.turn(1, 3, texts=[3, 3])
    talk.turn(0, 4, texts=[2, 4])  # the shorter row is padded in mid-conversation
