"""Ways to run a model, patched or not, over a conversation. They record the columns and logits of every call."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from helpers.families.base import CACHE
from torch import Tensor, nn
from transformers import DynamicCache, StaticCache

from tokenprune import PatchHandle, Report
from tokenprune.evals.dev.fuzz.families import Family
from tokenprune.evals.dev.fuzz.prompts import Turn, draw_turn


@dataclass
class Mode:
    """How a conversation is run.

    kind: "forward" is one call without a cache; "loop" calls the model turn by turn and token by token; "generate".
    cache: "none", "dynamic" (the model makes it), "given", or "static".
    position_ids: whether the caller of a loop passes them. mask: whether it passes an attention mask.
    """

    kind: str
    cache: str
    padding: str
    turns: list[Turn]
    beams: int = 1
    sample: bool = False
    steps: int = 3
    position_ids: bool = False
    mask: bool = True

    @property
    def form(self) -> str:
        if self.beams > 1:
            return "beams"
        if not self.turns[0].tensors:
            return "after a text prefix"
        return "continued turn" if len(self.turns) > 1 else "one turn"

    def __str__(self) -> str:
        images = "+".join("image" if turn.tensors else "text" for turn in self.turns)
        extras = [f"beams {self.beams}"] * (self.beams > 1) + ["sampled"] * self.sample
        extras += ["given IDs"] * self.position_ids + ["no mask"] * (not self.mask)
        return ", ".join([self.kind, f"cache {self.cache}", f"{self.padding} padding", images, *extras])


@dataclass
class Chunk:
    """The columns that one call added, and its logits: for the last column, or for `every` column that is left.

    whole: the attention mask up to here.
    """

    ids: Tensor
    real: Tensor
    whole: Tensor
    tensors: dict[str, Any] = field(default_factory=dict)
    report: Report | None = None
    logits: Tensor | None = None
    every: bool = False


def draw_mode(family: Family, rng: Random) -> Mode:
    batch = rng.choice([1, 1, 2, 2, 3, 4])
    kind = rng.choices(["forward", "generate", "loop"], [1, 2, 2])[0]
    padding = "left" if kind == "generate" else rng.choice(["left", "left", "right"])
    shapes = [[True]]
    if kind == "loop" or (kind == "generate" and family.kind.chats):
        shapes = [[True], [True], [False, True], [True, False], [True, True], [True, False, True]]
    images = rng.choice(shapes)
    if kind == "generate" and len(images) > 1:
        batch = rng.choice([1, batch])
    turns = [draw_turn(family, rng, batch, image, padding) for image in images]
    if kind == "forward":
        mask = not bool(turns[0].real.all()) or rng.random() < 0.7
        return Mode(kind, "none", padding, turns, mask=mask)
    if kind == "loop":
        mask = not all(bool(own.real.all()) for own in turns) or rng.random() < 0.7
        # Without position IDs, Qwen-VL misnumbers images of later turns, and tokens after a mask over all columns.
        given = rng.random() < 0.4 or (family.kind.mrope and (mask or len(turns) > 1))
        return Mode(kind, rng.choice(["dynamic", "given", "static"]), padding, turns, position_ids=given, mask=mask)
    if len(turns) > 1:
        return Mode(kind, "dynamic", padding, turns, steps=rng.randint(2, 3))
    beams = rng.choice([1, 1, 1, 2, 3])
    cache = rng.choice(["none", "dynamic", "dynamic", "static"])
    return Mode(kind, cache, padding, turns, beams, beams == 1 and rng.random() < 0.3, rng.randint(2, 4))


class Positions:
    """Records the position IDs that a language model gets, call by call, as (components, batch, length)."""

    def __init__(self, language_model: nn.Module) -> None:
        self.calls: list[Tensor] = []
        self._hook = language_model.register_forward_pre_hook(self._record, with_kwargs=True)

    def _record(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        embeds = kwargs["inputs_embeds"] if kwargs.get("inputs_embeds") is not None else kwargs["input_ids"]
        batch, length = embeds.shape[:2]
        ids, cache = kwargs.get("position_ids"), kwargs.get(CACHE)
        past = 0 if cache is None else int(cache.get_seq_length())
        if ids is None:
            ids = torch.arange(past, past + length)[None]
        ids = ids[..., -length:]
        ids = ids[None] if ids.ndim == 2 else ids[-3:]
        self.calls.append(ids.expand(-1, batch, -1).clone())

    def remove(self) -> None:
        self._hook.remove()


@torch.no_grad()
def run(family: Family, model: Any, mode: Mode, handle: PatchHandle | None = None) -> list[Chunk]:
    return {"forward": forward, "loop": loop, "generate": generate}[mode.kind](family, model, mode, handle)


def forward(family: Family, model: Any, mode: Mode, handle: PatchHandle | None) -> list[Chunk]:
    (turn,) = mode.turns
    given = {"attention_mask": turn.real} if mode.mask else {}
    out = model(input_ids=turn.ids, **given, **turn.tensors, **family.tiny.token_types(turn.ids), use_cache=False)
    report = None if handle is None else handle.report
    return [Chunk(turn.ids, turn.real, turn.real, turn.tensors, report, out.logits, every=True)]


def loop(family: Family, model: Any, mode: Mode, handle: PatchHandle | None) -> list[Chunk]:
    columns = sum(turn.ids.shape[1] + turn.answer.shape[1] for turn in mode.turns)
    cache = None
    if mode.cache == "given":
        cache = DynamicCache(config=model.config.get_text_config())
    if mode.cache == "static":
        cache = StaticCache(config=model.config.get_text_config(), max_cache_len=columns + 2)
    chunks: list[Chunk] = []
    whole = mode.turns[0].real[:, :0]
    counted = family.position_ids(mode.turns[0].ids[:, :0], whole, whole)
    for turn in mode.turns:
        parts = [(turn.ids, turn.real, turn.tensors, family.tiny.token_types(turn.ids))]
        parts += [(token, torch.ones_like(token), {}, {}) for token in turn.answer.split(1, 1)]
        for ids, real, tensors, types in parts:
            whole = torch.cat([whole, real], 1)
            given: dict[str, Any] = {"attention_mask": whole} if mode.mask else {}
            if mode.position_ids:
                counted = torch.cat([counted, family.position_ids(ids, real, counted)], -1)
                given["position_ids"] = counted[..., -ids.shape[1] :]
            out = model(input_ids=ids, **given, **tensors, **types, **{CACHE: cache}, use_cache=True)
            cache = out[CACHE]
            report = handle.report if handle is not None and tensors else None
            chunks.append(Chunk(ids, real, whole, tensors, report, out.logits, every=True))
    return chunks


def generate(family: Family, model: Any, mode: Mode, handle: PatchHandle | None) -> list[Chunk]:
    chunks: list[Chunk] = []
    pending = torch.zeros(len(mode.turns[0].ids), 0, dtype=torch.long)
    ids = real = pending
    cache = None
    for turn in mode.turns:
        before = ids.shape[1] - pending.shape[1]
        ids, real = torch.cat([ids, turn.ids], 1), torch.cat([real, turn.real], 1)
        chunks.append(Chunk(ids[:, before:], real[:, before:], real, turn.tensors))
        given: dict[str, Any] = {} if cache is None else {CACHE: cache}
        if mode.cache == "none":
            given["use_cache"] = False
        if mode.cache == "static":
            given["cache_implementation"] = "static"
        torch.manual_seed(0)
        out = model.generate(
            input_ids=ids,
            attention_mask=real,
            **turn.tensors,
            **family.tiny.token_types(ids),
            **given,
            max_new_tokens=mode.steps,
            num_beams=mode.beams,
            do_sample=mode.sample,
            return_dict_in_generate=True,
            output_logits=True,
        )
        cache = out[CACHE] if mode.cache != "none" else None
        answers, logits = out.sequences[:, -mode.steps :], list(out.logits)
        if mode.beams > 1:
            logits = [step[out.beam_indices[:, number]] for number, step in enumerate(logits)]
        chunks[-1].report = handle.report if handle is not None and turn.tensors else None
        chunks[-1].logits = logits[0][:, None]
        for number in range(1, mode.steps):
            ids = torch.cat([ids, answers[:, number - 1 : number]], 1)
            real = torch.cat([real, torch.ones_like(real[:, :1])], 1)
            chunks.append(Chunk(ids[:, -1:], real[:, -1:], real, logits=logits[number][:, None]))
        pending = answers[:, -1:]
        ids, real = torch.cat([ids, pending], 1), torch.cat([real, torch.ones_like(pending)], 1)
    return chunks
