"""Small models of the tests' own: a DeepSeek-OCR made of DeepSeek-OCR 2's parts and CLIP's layers, under the name of
the model with the same tower in transformers 5.24; and a DeepSeek-OCR 2 with fewer visual tokens than transformers'."""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
import transformers
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutputWithPast
from transformers.models.clip.modeling_clip import CLIPEncoderLayer
from transformers.models.deepseek_ocr2 import modeling_deepseek_ocr2 as ocr2

from helpers.served.converted.deepseek import N_CROP, N_WHOLE


class Encoder(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList([CLIPEncoderLayer(config) for _ in range(config.num_hidden_layers)])


class VisionEncoder(nn.Module):
    """CLIP's layers, on what the first encoder makes of a tile, (tiles, channels, rows, columns)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, width = config, config.hidden_size
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.position_embedding = nn.Embedding((config.image_size // config.patch_size) ** 2 + 1, width)
        self.pre_layrnorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.encoder = Encoder(config)

    def forward(self, maps: Tensor) -> Tensor:
        first = self.class_embedding.expand(len(maps), 1, -1)
        states = torch.cat([first, maps.flatten(2).transpose(1, 2)], 1) + self.positions(maps.shape[-1])
        states = self.pre_layrnorm(states)
        for layer in self.encoder.layers:
            states = layer(states, None)
        return states

    def positions(self, side: int) -> Tensor:
        first, others = self.position_embedding.weight.split([1, self.position_embedding.num_embeddings - 1])
        raster = rearrange(others, "(row column) width -> 1 width row column", row=isqrt(len(others)))
        if raster.shape[-1] != side:
            raster = interpolate(raster, (side, side), mode="bicubic", antialias=True)
        return torch.cat([first, rearrange(raster, "1 width row column -> (row column) width")])


class Tower(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.sam_encoder = ocr2.DeepseekOcr2SamVisionEncoder(config.sam_config)
        self.vision_encoder = VisionEncoder(config.encoder_config)

    def forward(self, pixel_values: Tensor) -> BaseModelOutput:
        maps: Any = self.sam_encoder(pixel_values).last_hidden_state
        states = self.vision_encoder(maps)[:, 1:]
        last: Any = torch.cat([states, maps.flatten(2).transpose(1, 2)], -1)
        return BaseModelOutput(last_hidden_state=last)


class UnlimitedOcrModel(ocr2.DeepseekOcr2PreTrainedModel):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        vision, width = config.vision_config, config.text_config.hidden_size
        seen = vision.sam_config.downsample_channels[-1] + vision.encoder_config.hidden_size
        self.vision_tower = Tower(vision)
        self.multi_modal_projector = nn.Linear(seen, width)
        self.language_model = ocr2.DeepseekOcr2TextModel(config.text_config)
        self.image_newline, self.view_separator = (nn.Parameter(torch.zeros(width)) for _ in range(2))

    def get_image_features(
        self,
        pixel_values: Tensor,
        pixel_values_local: Tensor | None = None,
        num_local_patches: Tensor | None = None,
        patches_grid: Tensor | None = None,
        **others: Any,
    ) -> Any:
        """patches_grid: how many (columns, rows) of crops each image has."""
        assert num_local_patches is not None
        assert patches_grid is not None
        wholes, n_images = self.vision_tower(pixel_values).last_hidden_state, len(pixel_values)
        local = None if pixel_values_local is None else self.vision_tower(pixel_values_local).last_hidden_state
        crops = [None] * n_images if local is None else local.split(num_local_patches.tolist())
        features: Any = [
            torch.cat(
                [
                    *([] if part is None or not len(part) else [self.canvas(part, rows)]),
                    self.canvas(whole[None], 1),
                    self.view_separator[None],
                ]
            )
            for whole, part, (_, rows) in zip(wholes, crops, patches_grid.tolist(), strict=True)
        ]
        return ocr2.DeepseekOcr2ModelOutputWithPooling(
            last_hidden_state=wholes, local_last_hidden_state=local, pooler_output=features
        )

    def canvas(self, tiles: Tensor, rows: int) -> Tensor:
        """Project tiles and join them to so many rows; a newline token follows each row of tokens."""
        pattern = "(row column) (y x) width -> (row y) (column x) width"
        states = self.multi_modal_projector(tiles)
        found = rearrange(states, pattern, row=rows, y=isqrt(tiles.shape[1]))
        return torch.cat([found, self.image_newline.expand(len(found), 1, -1)], 1).flatten(0, 1)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        image_inputs: dict[str, Tensor] | None = None,
        **others: Any,
    ) -> Any:
        embeds = self.language_model.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            features = self.get_image_features(pixel_values, **(image_inputs or {})).pooler_output
            visual = (input_ids == self.config.image_token_id)[..., None]
            embeds = embeds.masked_scatter(visual, torch.cat(list(features)))
        return self.language_model(inputs_embeds=embeds, **others)


class UnlimitedOcrForConditionalGeneration(ocr2.DeepseekOcr2PreTrainedModel, transformers.GenerationMixin):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = UnlimitedOcrModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        pixel_values_local: Tensor | None = None,
        num_local_patches: Tensor | None = None,
        patches_grid: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int = 0,
        return_dict: bool = True,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        images = {"pixel_values_local": pixel_values_local, "num_local_patches": num_local_patches}
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            image_inputs={**images, "patches_grid": patches_grid},
            attention_mask=attention_mask,
            position_ids=position_ids,
            **others,
        )
        others = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return CausalLMOutputWithPast(logits=self.lm_head(outputs.last_hidden_state[:, -logits_to_keep:]), **others)


class QueryTower(ocr2.DeepseekOcr2VisionModel):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        width = config.encoder_config.hidden_size
        self.query_768_resolution = nn.Embedding(N_CROP, width)
        self.query_1024_resolution = nn.Embedding(N_WHOLE, width)

    def forward(self, pixel_values: Tensor, **others: Any) -> BaseModelOutput:
        maps: Any = self.sam_encoder(pixel_values).last_hidden_state
        patches = maps.flatten(2).transpose(1, 2)
        queries = self.query_768_resolution if patches.shape[1] == N_CROP else self.query_1024_resolution
        both = torch.cat([patches, queries.weight.expand(len(patches), -1, -1)], 1)
        states = self.vision_encoder(inputs_embeds=both, num_patches=patches.shape[1]).last_hidden_state
        return BaseModelOutput(last_hidden_state=states[:, patches.shape[1] :])


class SecondDeepseekOcr(ocr2.DeepseekOcr2ForConditionalGeneration):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.vision_tower = QueryTower(config.vision_config)
