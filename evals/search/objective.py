"""VFlowOpt's objective (https://arxiv.org/abs/2508.05211): how close a pruned model's state is to the unpruned model's.

The state is the input of the language-model head. Only images and questions are needed, no answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import tokenprune
from tokenprune.adapters import adapter_for
from tokenprune.errors import PruningError, SettingError, UnsupportedError, unknown
from tokenprune.evals.search.calibration import encode_each
from tokenprune.evals.tasks.base.question import Question
from tokenprune.strategy import Strategy

#: last_token: the last token of the prompt. mean_pooled: the mean over all tokens after the image.
State = Literal["last_token", "mean_pooled"]
STATES: tuple[str, ...] = get_args(State)


@dataclass(frozen=True)
class Prompt:
    """One encoded question: the last `n_read` tokens make up the state; without pruning, it is `unpruned`."""

    id: str
    inputs: Any
    n_read: int
    unpruned: Tensor


class Objective:
    """The unpruned model's states on some questions, computed once, as the reference for pruned ones.

    grid_side: the longest of the shorter sides of all grids. n_visual: mean visual tokens of an image.
    highest_attention: the most that any patch receives in encoder layer `layer`, as a multiple of its tile's mean.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        questions: Sequence[Question],
        *,
        state: State = "last_token",
        layer: int | None = None,
    ) -> None:
        if state not in STATES:
            raise SettingError(unknown("state", state, STATES))
        self.model, self.state = model, state
        self._visual_ids = [modality.token_id for modality in adapter_for(model).modalities]
        self.prompts: list[Prompt] = []
        n_visual: list[int] = []
        sides: list[int] = []
        highest: list[float] = []
        with tokenprune.probe(model, {"vision_attention"}, layer=layer) as seen:
            for question, inputs in encode_each(model, processor, questions):
                n_read = 1 if state == "last_token" else self._after_images(inputs["input_ids"], question.id)
                self.prompts.append(Prompt(question.id, inputs, n_read, self._state(inputs, n_read, question.id)))
                for tokens in (image.tokens for image in seen.images):
                    received = tokens.vision_attention.column_sums()
                    highest.append(float((received / received.mean(1, keepdim=True)).max()))
                    n_visual.append(tokens.n_visual)
                    sides += [min(grid[1:]) for grid in tokens.grids]
        self.n_visual = sum(n_visual) / len(n_visual)
        self.grid_side, self.highest_attention = max(sides), max(highest)

    def agreement(self, strategy: Strategy) -> float:
        """The mean cosine, over the questions, between the states with and without a strategy."""
        with tokenprune.patch(self.model, strategy):
            states = [self._state(prompt.inputs, prompt.n_read, prompt.id) for prompt in self.prompts]
        unpruned = torch.stack([prompt.unpruned for prompt in self.prompts])
        return float(cosine_similarity(torch.stack(states), unpruned).mean())

    def _after_images(self, input_ids: Tensor, name: str) -> int:
        visual = torch.isin(input_ids[0], torch.tensor(self._visual_ids, device=input_ids.device))
        n_after = len(visual) - 1 - int(visual.nonzero()[-1])
        if n_after == 0:
            raise PruningError(f"{name}: no text after the image, so there is nothing to pool. Use last_token.")
        return n_after

    @torch.inference_mode()
    def _state(self, inputs: Any, n_read: int, name: str) -> Tensor:
        with _read_head(self.model) as seen:
            self.model(**inputs, logits_to_keep=n_read, use_cache=False)
        state = seen[-1][0, -n_read:].float().mean(0).cpu()
        if not bool(state.isfinite().all()):
            raise PruningError(f"{name}: the model's state has NaN or infinite values. Load it in another dtype.")
        return state


@contextmanager
def _read_head(model: Any) -> Any:
    """Collect the inputs of the language-model head."""
    head, seen = model.get_output_embeddings(), []
    if head is None:
        raise UnsupportedError(f"{type(model).__name__} has no language-model head, so its state cannot be read there.")
    hook = head.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    try:
        yield seen
    finally:
        hook.remove()
