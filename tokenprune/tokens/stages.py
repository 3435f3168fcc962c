"""The visual tokens that a strategy reads inside the language model, and between denoising steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.tokens.layout import Layout
from tokenprune.tokens.text_attention import TextAttention
from tokenprune.tokens.visual import declared


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
