"""Attention that is not plainly causal: sliding windows, image blocks, prefixes. Windows count columns, not slots."""

from functools import cache
from typing import Any

import pytest
import torch
from helpers.contract.modes import MODES
from helpers.contract.oracle import assert_close, dropped_columns
from helpers.families import FAMILIES, Family
from helpers.families.base import CACHE, EOS, IMAGE, additive, decoder
from helpers.families.llava import Llava
from torch import Tensor
from transformers import DynamicCache, Gemma2Config, MistralConfig, Qwen2Config

import tokenprune
from tokenprune import PruningError, Random, UnsupportedError
from tokenprune.sequence.finished_masks import MaskRequest
from tokenprune.sequence.masks import FULL, SLIDING, LayerKinds
from tokenprune.sequence.packing import Packing, Slots

PER_ROW = {"single": [1], "padded": [1, 2]}


class Windowed(Llava):
    """A LLaVA whose language model has a sliding window: in all layers, or in one of two."""

    def __init__(self, backbone: str, window: int) -> None:
        super().__init__("llava-clip")
        self.backbone, self.window = backbone, window

    def config(self) -> Any:
        config, window = super().config(), decoder(sliding_window=self.window)
        if self.backbone == "mistral":
            config.text_config = MistralConfig(**window)
        elif self.backbone == "qwen2":
            config.text_config = Qwen2Config(**window, use_sliding_window=True, max_window_layers=1)
        else:
            config.text_config = Gemma2Config(**window, head_dim=8, query_pre_attn_scalar=8)
        return config

    def mask(self, inputs: dict[str, Any], dropped: Tensor) -> Any:
        keys = inputs["attention_mask"].bool() & ~dropped
        seen, columns = self.seen(inputs), torch.arange(dropped.shape[1])
        sliding = additive(seen & (columns[:, None] - columns < self.window), keys)
        if self.backbone == "mistral":
            return sliding
        return {"full_attention": additive(seen, keys), "sliding_attention": sliding}


#: A prompt has at least 42 columns, at least 20 of which are left: windows are shorter or longer than the pruned
#: prompt.
WINDOWED = {
    f"{f.backbone}-{f.window}": f
    for f in (Windowed("mistral", 8), Windowed("mistral", 30), Windowed("qwen2", 8), Windowed("gemma2", 8))
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
    """Eager attention adds float masks, sdpa takes bool ones."""
    family, model, per_row = CASES[name], model_of(name, "eager"), [1, 2]
    if mode in family.cannot:
        pytest.skip("transformers does not do it right")
    with torch.no_grad(), tokenprune.patch(model, strategy()) as handle:
        run = MODES[mode](family, model, family.prompt(per_row), per_row)
    dropped = dropped_columns(run.whole(family)["input_ids"], [handle.report])
    assert_close(run.logits, run.expected(family, model, dropped))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_masks_that_the_caller_makes(attention: str) -> None:
    """Any pattern, in prefill and decode, the same for all rows."""
    family = FAMILIES["llava-clip"]
    model, inputs = family.build(attention), family.prompt([1, 1], texts=[4, 4])
    length = inputs["input_ids"].shape[1]
    generator = torch.Generator().manual_seed(0)
    seen = torch.rand(1, length + 1, length + 1, generator=generator) < 0.5
    token = torch.tensor([[7], [7]])
    whole = family.continued(inputs, token)
    given = additive(seen, torch.ones(1, length + 1).bool())
    if attention == "sdpa":
        given = given == 0
    ids = family.position_ids(model, whole)
    with torch.no_grad():
        with tokenprune.patch(model, strategy()) as handle:
            first = {**inputs, "attention_mask": given[..., :length, :length], "position_ids": ids[:, :length]}
            out = model(**first, use_cache=True)
            last = {"input_ids": token, "attention_mask": given[..., length:, :]}
            logits = model(**last, position_ids=ids[:, length:], **{CACHE: out[CACHE]}).logits
        dropped = dropped_columns(whole["input_ids"], [handle.report])
        mask = additive(given[:, 0] == 0 if attention == "eager" else given[:, 0], ~dropped)
        # Tokens of the prefill did not see the last column.
        mask[..., :length, length:] = torch.finfo(torch.float32).min
        expected = model(**{**whole, "attention_mask": mask}, position_ids=ids, use_cache=False).logits
    assert_close(out.logits, expected[:, :length][~dropped[:, :length]].view_as(out.logits))
    assert_close(logits, expected[:, length:])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_bias_that_the_caller_adds(attention: str) -> None:
    """A column with a small negative bias is not mistaken for padding, which is dropped."""
    family = FAMILIES["llava-clip"]
    model, inputs = family.build(attention), family.prompt([1])
    real = inputs["attention_mask"].bool()
    bias = torch.where(inputs["input_ids"] == IMAGE, 0.0, -0.7) * torch.arange(real.shape[1]).fmod(2)
    given = {**inputs, "position_ids": family.position_ids(model, inputs), "use_cache": False}
    with torch.no_grad():
        with tokenprune.patch(model, strategy()) as handle:
            logits = model(**{**given, "attention_mask": additive(family.seen(inputs), real) + bias}).logits
        dropped = dropped_columns(inputs["input_ids"], [handle.report])
        expected = model(**{**given, "attention_mask": family.mask(inputs, dropped) + bias}).logits
    assert_close(logits, expected[~dropped][None])


@pytest.mark.parametrize("name", ["mistral-8", "gemma3", "paligemma"])
@pytest.mark.parametrize("implementation", ["flex_attention", "flash_attention_2"])
def test_attention_that_takes_no_such_masks(name: str, implementation: str) -> None:
    model = CASES[name].build()
    model.config.get_text_config()._attn_implementation = implementation
    what = "attention that is not causal" if name == "paligemma" else "sliding-window attention"
    with pytest.raises(UnsupportedError, match=f"{what} needs .*'{implementation}' does not take them"):
        tokenprune.patch(model, strategy())


def test_attention_that_is_exchanged_for_such_a_one() -> None:
    model = CASES["mistral-8"].build()
    with tokenprune.patch(model, strategy()):
        model.config.get_text_config()._attn_implementation = "flex_attention"
        with pytest.raises(UnsupportedError, match="'flex_attention' does not take them"):
            model(**CASES["mistral-8"].prompt([1]))


def test_layers_of_other_kinds() -> None:
    model = CASES["qwen2-8"].build()
    model.config.text_config.layer_types = ["full_attention", "compressed_sparse_attention"]
    with pytest.raises(UnsupportedError, match="qwen2 language model with 'compressed_sparse_attention' layers is not"):
        tokenprune.patch(model, strategy())


@pytest.mark.skipif(not hasattr(DynamicCache, "activate_past_recording"), reason="transformers cannot crop windows yet")
def test_prompt_lookup() -> None:
    """Assisted decoding crops rejected tokens from caches that hold only a window."""
    family, model = CASES["mistral-8"], model_of("mistral-8")
    inputs = family.prompt([1])
    inputs["input_ids"][inputs["input_ids"] != IMAGE] = 7  # repetitive text, so that lookups are found
    settings: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": EOS}
    with torch.no_grad(), tokenprune.patch(model, strategy()):
        plain = model.generate(**inputs, **settings)
        assert torch.equal(model.generate(**inputs, **settings, prompt_lookup_num_tokens=3), plain)


def test_a_mask_worked_out_by_hand() -> None:
    """Columns 0 to 3 are in a cache as slots 0 to 2, without column 1 and with a hole. Of columns 4 and 5, 4 was
    dropped."""
    slots = Slots(torch.tensor([[0, 2, 0, 3]]), torch.tensor([[True, True, False, True]]))
    packing = Packing(torch.tensor([[1]]), torch.tensor([[True]]), n_columns=2, counts=(1,))
    pattern = torch.tensor([[0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15]]).float()[None, None]
    closed = torch.finfo(torch.float32).min

    def call(length: int, first: int) -> Any:
        return MaskRequest(slots.append(packing, 4), packing, 4, lambda layer, n: (length, first), torch.bool, None)

    full, sliding = LayerKinds((FULL,), None, by_kind=False), LayerKinds((SLIDING,), 3, by_kind=True)
    assert call(5, 0).masks(pattern, full)[0, 0].tolist() == [[10, 12, closed, 13, 15]]
    assert call(6, 0).masks(pattern, full)[0, 0].tolist() == [[10, 12, closed, 13, 15, closed]]  # a static cache's room
    assert call(3, 2).masks(pattern[..., 3:], sliding)[SLIDING][0, 0].tolist() == [[closed, 13, 15]]
    # A slot whose column is before those of the pattern is outside the window.
    assert call(5, 0).masks(pattern[..., 3:], sliding)[SLIDING][0, 0].tolist() == [[closed, closed, closed, 13, 15]]
    assert call(4, 1).masks(None, sliding)[SLIDING][0, 0].tolist() == [[False, False, True, True]]
    assert call(5, 0).masks(None, full)[0, 0].tolist() == [[True, True, False, True, True]]
    with pytest.raises(PruningError, match=r"mask of shape \(1, 1, 2, 3\): the cache and this call hold 6 tokens"):
        call(5, 0).masks(pattern[..., 3:], full)
