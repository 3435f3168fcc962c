"""Mistral Large 4, HY-V4-VL and dots3-note: an indexer scores all tokens, and a query attends to the best 10. Decoders
keep one latent vector per token, and the second layer has experts."""

from typing import Any

import torch
from torch import Tensor
from transformers.models.dots3_note import modeling_dots3_note
from transformers.models.hy_v4_vl import modeling_hy_v4_vl
from transformers.models.mistral_large4 import modeling_mistral_large4

from .base import IMAGE, VIDEO, Family, Size
from .common import CommonFamily
from .mistral3 import Mistral3
from .packed import Sliced
from .qwen_vl import MERGE, MRope
from .ties import softplus_for_relu


class MistralLarge4(CommonFamily, Mistral3):
    """The second layer attends to what the indexer of the first has chosen, and does not rotate."""

    contract = "masking except ties"

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        """Return a model whose softmax scales differ from the defaults, at which transformers leaves them."""
        softplus_for_relu(modeling_mistral_large4)
        model = super().build(attention, seed, n_layers)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "softmax_scaling" in name:
                    parameter.fill_(0.5)
        return model

    def position_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return generate's position IDs: the model's own count padding, and queries are scaled by them."""
        return Family.position_ids(self, model, inputs)

    def oracle(self, model: Any, inputs: dict[str, Any], dropped: Tensor, position_ids: Tensor | None = None) -> Tensor:
        ids = self.position_ids(model, inputs) if position_ids is None else position_ids
        return super().oracle(model, inputs, dropped, ids)


class HYV4VL(MRope, Sliced):
    """A newline token ends every row of an image, and is one of its visual tokens."""

    contract = "masking except ties"

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        softplus_for_relu(modeling_hy_v4_vl)
        return super().build("eager" if attention == "sdpa" else attention, seed, n_layers)

    def block(self, size: Size) -> list[int]:
        t, h, w = self.grid(size)
        return [VIDEO if len(size) == 3 else IMAGE] * (t * (h // MERGE) * (w // MERGE + 1))


class Dots3Note(CommonFamily, Sliced):
    """One layer with an indexer, and one with a sliding window and different heads."""

    contract = "masking except ties"

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        softplus_for_relu(modeling_dots3_note)
        return super().build(attention, seed, n_layers)
