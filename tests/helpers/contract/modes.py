"""The ways to run a model. Each returns the answers together with the prompts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from helpers.families import Family
from helpers.families.base import CACHE, ENCODES_FIRST, IMAGE

STEPS = 8


@dataclass
class Run:
    """The result of a mode: the prompt, repeated as in the mode, the answers, and the logits of every step.

    position_ids: those of the whole conversation, if they are not the family's own.
    """

    inputs: dict[str, Any]
    answers: Tensor  # (batch, steps)
    logits: Tensor  # (batch, steps, vocabulary)
    position_ids: Tensor | None = None

    def whole(self, family: Family) -> dict[str, Any]:
        return family.continued(self.inputs, self.answers)

    def expected(self, family: Family, model: Any, dropped: Tensor) -> Tensor:
        """Return the oracle's `logits`."""
        logits = family.oracle(model, self.whole(family), dropped, self.position_ids)
        return logits[:, -self.logits.shape[1] - 1 : -1]


def generated(model: Any, inputs: dict[str, Any], **settings: Any) -> tuple[Tensor, Tensor]:
    out = model.generate(**inputs, max_new_tokens=STEPS, return_dict_in_generate=True, output_logits=True, **settings)
    return out.sequences[:, -STEPS:], torch.stack(out.logits, 1)


def greedy(family: Family, model: Any, inputs: dict[str, Any], per_row: list[int]) -> Run:
    return Run(inputs, *generated(model, inputs, do_sample=False))


def uncached(family: Family, model: Any, inputs: dict[str, Any], per_row: list[int]) -> Run:
    return Run(inputs, *generated(model, inputs, do_sample=False, use_cache=False))


def static(family: Family, model: Any, inputs: dict[str, Any], per_row: list[int]) -> Run:
    return Run(inputs, *generated(model, inputs, do_sample=False, cache_implementation="static"))


def sampled(family: Family, model: Any, inputs: Any, per_row: list[int]) -> Run:
    torch.manual_seed(3)
    answers, logits = generated(model, inputs, do_sample=True, num_return_sequences=2)
    return Run(family.repeated(inputs, 2, per_row), answers, logits, family.repeated_ids(model, inputs, answers))


def embedded(family: Family, model: Any, inputs: dict[str, Any], per_row: list[int]) -> Run:
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    given = {**inputs, "inputs_embeds": embeds}
    del given["input_ids"]
    run = Run(inputs, *generated(model, given, do_sample=False))
    run.position_ids = family.embedded_ids(model, run.whole(family))
    return run


def decoded_by_hand(
    family: Family, model: Any, inputs: dict[str, Any], per_row: list[int], with_ids: bool = True
) -> Run:
    """Decode in a loop that passes the growing mask, with or without position IDs (without, transformers counts
    padding)."""
    answers, logits, cache = inputs["input_ids"][:, :0], [], None
    for step in range(STEPS):
        whole = family.continued(inputs, answers)
        new = inputs if step == 0 else {"input_ids": answers[:, -1:]}
        given = {**new, "attention_mask": whole["attention_mask"], CACHE: cache}
        if with_ids:
            given["position_ids"] = family.position_ids(model, whole)[..., -new["input_ids"].shape[1] :]
        out = model(**given, use_cache=True)
        cache = out[CACHE]
        logits.append(out.logits[:, -1].detach())
        answers = torch.cat([answers, logits[-1][:, :IMAGE].argmax(-1, keepdim=True)], 1)
    return Run(inputs, answers, torch.stack(logits, 1))


MODES: dict[str, Callable[[Family, Any, dict[str, Any], list[int]], Run]] = {
    "greedy": greedy,
    "sampled": sampled,
    "uncached": uncached,
    "static": static,
    "embedded": embedded,
    "loop": decoded_by_hand,
}
BATCHES: dict[str, dict[str, Any]] = {"single": {"images_per_row": [1]}, "padded": {"images_per_row": [1, 2]}}
VIDEO_BATCHES: dict[str, dict[str, Any]] = {
    "video": {"images_per_row": [0, 0], "videos_per_row": [1, 2]},
    "both": {"images_per_row": [1, 2], "videos_per_row": [1, 0]},
}
#: Modes that build their own masks or caches: a single row takes other paths in transformers, without any mask.
CELLS = [(mode, "padded") for mode in MODES] + [(mode, "single") for mode in ("greedy", "uncached", "static")]
VIDEO_CELLS = [("greedy", "video"), ("uncached", "video"), ("loop", "video"), ("greedy", "both"), ("static", "both")]


def video_batches_of(family: Family) -> list[str]:
    """Return the batches with videos that a family supports."""
    if not family.video_sizes:
        return []
    return list(VIDEO_BATCHES) if family.mixes else ["video"]


def cells_of(family: Family) -> list[tuple[str, str]]:
    """Return all (mode, batch) in which the contract matrix runs a family."""
    return CELLS + [(mode, batch) for mode, batch in VIDEO_CELLS if batch in video_batches_of(family)]


def run_cell(family: Family, model: Any, mode: str, batch: str) -> Run:
    settings: dict[str, Any] = {**BATCHES, **VIDEO_BATCHES}[batch]
    if mode == "sampled" and not (ENCODES_FIRST and family.repeats_rows()):
        # Several answers: each image is repeated separately.
        settings = {"images_per_row": [1, 1]}
    return MODES[mode](family, model, family.prompt(**settings), settings["images_per_row"])
