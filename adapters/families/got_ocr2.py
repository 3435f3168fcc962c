"""GOT-OCR 2 and PP-Chart2Table: two convolutions make a visual token of 4 x 4 patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import GlobalLayersMixin
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.sam import SAM_TOWER, global_layers
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout

#: Patches to a visual token, in each direction: two convolutions with a stride of two.
SIDE = 4


@register_adapter("GotOcr2ForConditionalGeneration")
class GotOcr2Adapter(GlobalLayersMixin, ModelAdapter):
    """For GotOcr2ForConditionalGeneration. Each crop of an image is an image. The convolutions overlap: a visual token
    is given the patches of its own square, and sees a little of those to the left of it and above."""

    def describe_tower(self) -> Tower:
        return SAM_TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_images, _, rows, columns = output.last_hidden_state.shape
        return [Layout.squares(rows, columns, SIDE)] * n_images

    @property
    def global_layers(self) -> Sequence[int]:
        return global_layers(self.vision_tower)
