"""The class that every model family derives from."""

from __future__ import annotations

from torch import nn

from tokenprune.adapters.base.inputs import Inputs
from tokenprune.adapters.base.vision import Vision
from tokenprune.adapters.decoder.config import Decoder
from tokenprune.errors import UnsupportedError


class ModelAdapter(Vision, Inputs):
    """Answers for one loaded model. The constructor raises UnsupportedError for a model that it cannot answer for.

    A family must define `layouts`. It may override any of these; the defaults fit models whose base model scatters
    visual features over placeholder tokens and calls its language model with inputs_embeds, attention_mask,
    position_ids and a cache, as the LLaVA family does:

        parts (parts.py)    core, language_model, layers, vision_tower, vision_towers, describe_tower
        inputs (inputs.py)  takes_video or modalities, visual_mask, image_starts, encoded, sequence_arguments,
                            prune_arguments, inner_features with prune_inner_features, noncausal, unprunable
        vision (vision.py)  layouts, offers, tower_layers, encoder_layer or consumed_layer, capture_points, tile_heads,
                            tile_pixels
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.config = model.config
        if self.vision_tower is None:
            raise UnsupportedError(
                f"{type(model).__name__} without a vision tower has no visual tokens to prune. Load the whole model, "
                f"for instance with {type(model).__name__}.from_pretrained(...)."
            )
        self.tower = self.describe_tower()
        self.decoder = Decoder.of(self.config.get_text_config(), self.noncausal)
