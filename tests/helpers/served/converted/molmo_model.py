"""A small Molmo 2 made of SigLIP's layers and a Qwen3, because transformers 5.19 has no Molmo 2. As in vLLM, the tokens
of each image attend to each other; in transformers 5.24, those of all images do."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.models.llava.modeling_llava import LlavaPreTrainedModel
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer


class Tower(nn.Module):
    """Returns the output of every layer for the patches of crops."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        n_patches = (config.image_size // config.patch_size) ** 2
        self.patch_embedding = nn.Linear(3 * config.patch_size**2, config.hidden_size)
        self.positional_embedding = nn.Parameter(torch.zeros(n_patches, config.hidden_size))
        self.layers = nn.ModuleList([SiglipEncoderLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        states, found = self.patch_embedding(pixel_values) + self.positional_embedding, []
        for layer in self.layers:
            states = layer(states, None)
            found.append(states)
        return found


class Pooling(nn.Module):
    """Pools patches into a visual token: the mean of the patches attends to them."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.width, inner, given = config.head_dim, config.intermediate_size, config.hidden_size * 2
        self.queries, self.keys, self.values = (nn.Linear(given, config.hidden_size) for _ in range(3))
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.gate, self.up = (nn.Linear(config.hidden_size, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, config.text_hidden_size, bias=False)

    def forward(self, patches: Tensor, indices: Tensor) -> Tensor:
        """indices: (visual, pooled), -1 where there is no patch."""
        real = indices >= 0
        pooled = patches[indices.clamp(min=0)] * real[..., None]
        mean = pooled.sum(1, keepdim=True) / real.sum(1)[:, None, None]
        query, key, value = (
            part.unflatten(-1, (-1, self.width)).transpose(1, 2)
            for part in (self.queries(mean), self.keys(pooled), self.values(pooled))
        )
        found = scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None])
        states = self.output(found.transpose(1, 2).flatten(1))
        return self.down(silu(self.gate(states)) * self.up(states))


class Molmo2Model(LlavaPreTrainedModel):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.vision_tower = Tower(config.vision_config)
        self.multi_modal_projector = Pooling(config.adapter_config)
        self.language_model = transformers.AutoModel.from_config(config.text_config)

    def get_image_features(
        self,
        pixel_values: Tensor,
        image_token_pooling: Tensor,
        image_grids: Tensor,
        image_num_crops: Tensor,
        **others: Any,
    ) -> BaseModelOutputWithPooling:
        """Patches are numbered within every image."""
        layers = self.vision_tower(pixel_values)
        states = torch.cat([layers[layer] for layer in self.config.adapter_config.vision_feature_layer], -1)
        counts = (image_grids[:, 0] * image_grids[:, 1] + image_grids[:, 2] * image_grids[:, 3]).tolist()
        images = zip(states.split(image_num_crops.tolist()), image_token_pooling.split(counts), strict=True)
        features: Any = tuple(self.multi_modal_projector(crops.flatten(0, 1), pooled) for crops, pooled in images)
        return BaseModelOutputWithPooling(pooler_output=features)

    def get_video_features(self, pixel_values_videos: Tensor) -> Any:
        raise NotImplementedError("videos are not pruned")

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_inputs: dict[str, Tensor] | None = None,
        **others: Any,
    ) -> Any:
        embeds = self.language_model.get_input_embeddings()(input_ids)
        if pixel_values is not None and mm_token_type_ids is not None:
            features = self.get_image_features(pixel_values, **(image_inputs or {})).pooler_output
            visual = (input_ids == self.config.image_token_id)[..., None]
            added = torch.zeros_like(embeds).masked_scatter(visual, torch.cat(list(features or ())))
            embeds, attention_mask = embeds + added, within_images(mm_token_type_ids[0])[None, None]
        return self.language_model(inputs_embeds=embeds, attention_mask=attention_mask, **others)


def within_images(inside: Tensor) -> Tensor:
    """Return which tokens of a prompt each token attends to: those before it, and those of its own image."""
    image = torch.where(inside == 1, (inside.diff(prepend=inside.new_zeros(1)) == 1).cumsum(0), -1)
    causal = torch.ones(len(inside), len(inside), dtype=torch.bool).tril()
    return causal | ((image[:, None] == image) & (image >= 0))


class Molmo2ForConditionalGeneration(LlavaPreTrainedModel, transformers.GenerationMixin):
    """Takes one prompt at a time, and never answers with the marks of images."""

    def __init__(self, config: Any) -> None:
        config.adapter_config = transformers.PreTrainedConfig(**config.adapter_config)
        super().__init__(config)
        self.model = Molmo2Model(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.n_words, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        image_token_pooling: Tensor | None = None,
        image_grids: Tensor | None = None,
        image_num_crops: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int = 0,
        return_dict: bool = True,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        images = {"image_token_pooling": image_token_pooling, "image_grids": image_grids}
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            mm_token_type_ids=mm_token_type_ids,
            attention_mask=attention_mask,
            image_inputs={**images, "image_num_crops": image_num_crops},
            position_ids=position_ids,
            **others,
        )
        others = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return CausalLMOutputWithPast(logits=self.lm_head(outputs.last_hidden_state[:, -logits_to_keep:]), **others)
