"""The question's attention to the images of its prompt, at the cost of the decoder layers up to the one read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters import ModelAdapter, adapter_for
from tokenprune.adapters.conventions import unwrap_model
from tokenprune.errors import PruningError, UnsupportedError
from tokenprune.patching import probe
from tokenprune.sequence.masks import CHUNKED, SLIDING, LayerKinds
from tokenprune.tokens.layout import Layout


@dataclass(frozen=True, eq=False)
class QuestionAttention:
    """The attention of a prompt's last token to one of its images.

    scores: the attention to each visual token, newline tokens excluded, averaged over heads.
    centers: the center of each of these tokens, (x, y) in fractions of the image.
    n_visual: the number of visual tokens of the image, newline tokens included.
    """

    scores: Float[Tensor, " tokens"]
    centers: Float[Tensor, "tokens 2"]
    n_visual: int

    @property
    def focus(self) -> float:
        """How sharply the question attends to this image: the sum of squared scores, which is the probability that two
        draws of attention fall on the same token of it. The plain sum says little, because nearly all attention of the
        last token goes to visual tokens, whatever they show.
        """
        return float((self.scores**2).sum())

    @classmethod
    def of(cls, scores: Float[Tensor, " visual"], layout: Layout) -> QuestionAttention:
        """Drop the newline tokens, which have no place in the image and never vote."""
        centers = token_centers(layout)
        real = ~centers.isnan().any(1)
        return cls(scores.cpu()[real], centers[real], layout.n_visual)


def question_attention(
    model: Any, inputs: Any, layer: int, adapter: type[ModelAdapter] | None = None
) -> list[QuestionAttention]:
    """The attention in decoder layer `layer` to every image in a batch of prompts, in reading order.

    adapter: as for `patch`. A patch of the model is suspended meanwhile.

    Raises UnsupportedError for a model whose visual tokens have no known place in the image, and for prompts that are
    longer than the layer's sliding window or chunk; PruningError for attention that is not finite, which points
    nowhere.
    """
    model_adapter = adapter_for(unwrap_model(model), adapter)
    if "grid" not in model_adapter.offers:
        raise UnsupportedError(
            f"Zoom follows attention to places in the image, and of {model_adapter.description} it is not known where "
            f"its visual tokens are. Load a model of another family, such as LLaVA or Qwen3-VL."
        )
    _check_reach(model_adapter.decoder.layers, layer, inputs["input_ids"].shape[1])
    with probe(model, decoder_layers=[layer], adapter=adapter) as seen:
        images = [
            QuestionAttention.of(image.text_attention[layer].from_last(), image.tokens.layout)
            for image in seen.run(**inputs)
        ]
    if not all(bool(image.scores.isfinite().all()) for image in images):
        raise PruningError(
            f"Zoom: the attention in decoder layer {layer} has NaN or infinite values, as in many models in float16. "
            f"Load the model with dtype=torch.bfloat16 or torch.float32."
        )
    return images


def _check_reach(layers: LayerKinds, layer: int, n_tokens: int) -> None:
    """Images at the beginning of a longer prompt would seem to have nothing to do with the question."""
    reach = {SLIDING: layers.window, CHUNKED: layers.chunk}
    most = reach.get(layers.kinds[layer])
    if most is not None and n_tokens > most:
        whole = [number for number, kind in enumerate(layers.kinds) if kind not in reach]
        instead = f"Zoom(layer={min(whole, key=lambda number: abs(number - layer))}), " if whole else ""
        raise UnsupportedError(
            f"Zoom: decoder layer {layer} attends to {most} tokens at a time, and the prompt has {n_tokens}. Write "
            f'{instead}fewer tiles, or prompts="apart".'
        )


def token_centers(layout: Layout) -> Float[Tensor, "visual 2"]:
    """(x, y) of the center of each visual token in fractions of the image; NaN for newline tokens.

    Raises UnsupportedError for layouts whose rasters show parts of the image.
    """
    newlines = layout.newline_mask()
    if layout.n_tiles > 1 and layout.newlines is None:
        raise UnsupportedError(
            "this model cuts each tile into tiles of its own, at unknown positions. Give Zoom a smaller tile, or "
            "switch the processor's own tiling off."
        )
    raster, _, row, column = layout.coordinates().T
    centers = torch.full((layout.n_visual, 2), torch.nan, dtype=torch.float32, device="cpu")
    for number in raster.unique():
        own = (raster == number) & ~newlines
        if own.any():
            centers[own, 0] = (column[own].float() + 0.5) / (int(column[own].max()) + 1)
            centers[own, 1] = (row[own].float() + 0.5) / (int(row[own].max()) + 1)
    return centers
