"""The visual tokens that a strategy reads inside the language model, and between denoising steps; and the
attention that one decoder layer pays to them. The layer keeps its fast attention kernel; only the rows that a strategy
needs are computed here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.errors import PruningError
from tokenprune.tokens.attention import block_length
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.visual import declared


@dataclass(frozen=True, eq=False)
class TextAttention:
    """The attention of one decoder layer in one row of the batch, over the tokens of this call that the layer saw.

    real: False for padding and holes, which take no part.
    visual: indices of the image's visual tokens among these tokens.
    text: indices of the text after the image, without visual tokens of any image; the last token if there is no text.
    seen: a mask of the tokens that each token attends to; None if each attends to all tokens up to itself.
    added: what the layer's mask adds to the logits; None if it adds nothing.
    values: the value vectors of the tokens; None in a layer that has not been entered.
    rotation: the cosines and sines of the angles by which the layer rotates each token's query and key.
    last_only: whether only the last token's query is meaningful, as in a layer that has not been entered.

    In a conversation that reuses a cache, the softmax leaves out the tokens cached by earlier turns.
    """

    queries: Float[Tensor, "heads tokens width"]
    keys: Float[Tensor, "key_heads tokens width"]
    scale: float
    real: Bool[Tensor, " tokens"]
    visual: Int[Tensor, " left"]
    text: Int[Tensor, " text"]
    seen: Bool[Tensor, "tokens tokens"] | None = None
    added: Float[Tensor, "tokens tokens"] | None = None
    values: Float[Tensor, "key_heads tokens width"] | None = None
    rotation: Float[Tensor, "two tokens angles"] | None = None
    last_only: bool = False

    def from_last(self) -> Float[Tensor, " left"]:
        """Return the attention that the last token of the prompt pays to each visual token."""
        places = torch.arange(len(self.real), device=self.real.device)
        return self._from((places * self.real).amax(0, keepdim=True))

    def from_text(self) -> Float[Tensor, " left"]:
        """Return the attention that the text after the image pays to each visual token, averaged over its tokens."""
        return self.from_rows(self.text)

    def from_all(self) -> Float[Tensor, " left"]:
        """Return the attention that all tokens, visual ones included, pay to each visual token, averaged over them."""
        return self.from_rows(self.real.nonzero()[:, 0])

    def from_rows(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, " left"]:
        """Return the attention that the tokens at `rows` pay to each visual token, averaged over them and over heads.
        Computed in blocks of rows. Raises PruningError if only the last token's query is known."""
        if self.last_only:
            raise PruningError(
                "of a decoder layer about to be entered, only the last token's attention is read. Rank by "
                "tokens.attention.from_last(), or make stages without looks_ahead."
            )
        return self._from(rows)

    def _from(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, " left"]:
        n_heads, n_tokens, _ = self.queries.shape
        keys = rearrange(self.keys.float(), "key_head token width -> key_head 1 width token")
        groups = rearrange(
            self.queries, "(key_head group) token width -> key_head group token width", key_head=len(keys)
        )
        total = keys.new_zeros(n_tokens)
        for block in rows.split(block_length(n_heads * n_tokens, rows.device)):
            logits = (groups[:, :, block].float() * self.scale @ keys).flatten(0, 1)
            if self.added is not None:
                logits += self.added[block].float()
            weights = logits.masked_fill_(~self._seen_by(block), float("-inf")).softmax(-1)
            total += weights.mean(0).sum(0)
        return total[self.visual] / len(rows)

    def _seen_by(self, rows: Int[Tensor, " rows"]) -> Bool[Tensor, "rows tokens"]:
        if self.seen is not None:
            return self.seen[rows] & self.real
        return self.real & (torch.arange(len(self.real), device=rows.device) <= rows[:, None])


@dataclass(frozen=True, eq=False)
class FirstLayerInputs:
    """Hidden states of one image's visual tokens, and of the text after it, on entry to the first decoder layer."""

    visual: Float[Tensor, "entered width"]
    text: Float[Tensor, "text width"]


@dataclass(frozen=True, eq=False)
class StageTokens:
    """The remaining visual tokens of one image at the start of an in-LLM stage.

    features: their hidden states on entry to the stage's first decoder layer.
    left: their indices within the image's visual tokens, ascending.
    layout: the layout of all the image's visual tokens.
    scores: their scores in the previous selection; None if it gave none.
    text_attention, prompt, text: to be read as `attention`, `entered` and `text_features`. `prompt` is a function,
        because few strategies read its result.
    """

    features: Float[Tensor, "left width"]
    left: Int[Tensor, " left"]
    layout: Layout
    scores: Float[Tensor, " left"] | None = None
    text_attention: TextAttention | None = None
    prompt: Callable[[], FirstLayerInputs] | None = None
    text: Float[Tensor, "text width"] | None = None

    @property
    def n_left(self) -> int:
        return len(self.left)

    @property
    def n_visual(self) -> int:
        """The number of visual tokens of the whole image."""
        return self.layout.n_visual

    @property
    def attention(self) -> TextAttention:
        """The attention of the decoder layer before the stage, or, if the stage `looks_ahead`, of its first one; among
        at least all the remaining tokens."""
        return declared("attention", "text_attention", self.text_attention)

    @property
    def entered(self) -> FirstLayerInputs:
        """Hidden states on entry to the first decoder layer."""
        return declared("entered", "text_attention", self.prompt)()

    @property
    def text_features(self) -> Float[Tensor, "text width"]:
        """The hidden states of the text after the image on entry to the stage's first decoder layer."""
        return declared("text_features", "text_attention", self.text)


@dataclass(frozen=True, eq=False)
class StepTokens:
    """The remaining visual tokens of one image between two denoising steps.

    attention: the attention that the canvas paid to each of them in the step before, averaged over heads and canvas
        positions.
    left: their indices within the image's visual tokens, ascending.
    n_visual: the number of visual tokens of the whole image.
    """

    attention: Float[Tensor, " left"]
    left: Int[Tensor, " left"]
    n_visual: int

    @property
    def n_left(self) -> int:
        return len(self.left)
