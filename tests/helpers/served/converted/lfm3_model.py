"""A small LFM3-VL made of transformers' LFM2, because transformers 5.22, with which vLLM 0.34 runs, has no LFM3-VL. As
in vLLM, sliding windows count the tokens that are left; in `tokenprune.patch`, also dropped ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import transformers
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.models.lfm2.modeling_lfm2 import Lfm2Attention, Lfm2DecoderLayer, Lfm2MLP, Lfm2Model
from transformers.models.lfm2_vl.modeling_lfm2_vl import Lfm2VlPreTrainedModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

#: The tower's.
THETA = 1e6


class TowerAttention(nn.Module):
    """Patches attend within frames; several heads share keys."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        n, self.n_shared = config.hidden_size, config.num_attention_heads // config.num_key_value_heads
        self.width = n // config.num_attention_heads
        self.q_proj, self.out_proj = nn.Linear(n, n, bias=False), nn.Linear(n, n, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(n, n // self.n_shared, bias=False) for _ in range(2))
        self.q_norm, self.k_norm = (nn.RMSNorm(self.width, eps=config.norm_eps) for _ in range(2))

    def forward(self, states: Tensor, position_embeddings: tuple[Tensor, Tensor], lengths: list[int]) -> Tensor:
        queries, keys, values = (
            project(states).unflatten(-1, (-1, self.width)) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries, keys = apply_rotary_pos_emb_vision(self.q_norm(queries), self.k_norm(keys), *position_embeddings)
        keys, values = (part.repeat_interleave(self.n_shared, 1) for part in (keys, values))
        frames = zip(*(part.transpose(0, 1).split(lengths, 1) for part in (queries, keys, values)), strict=True)
        found = torch.cat([scaled_dot_product_attention(*frame) for frame in frames], 1)
        return self.out_proj(found.transpose(0, 1).flatten(1))


class TowerConvolution(nn.Module):
    """Mixes neighbouring patches of a frame."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        n, self.merge = config.hidden_size, config.spatial_merge_size
        self.in_proj, self.out_proj = nn.Linear(n, 3 * n, bias=False), nn.Linear(n, n, bias=False)
        self.spatial_conv = nn.Conv2d(n, n, 3, padding=1, groups=n, bias=False)

    def forward(self, states: Tensor, frames: list[tuple[int, int]]) -> Tensor:
        gate_in, gate_out, given = self.in_proj(states).chunk(3, -1)
        mixed = []
        for row, (height, width) in zip((gate_in * given).split([h * w for h, w in frames]), frames, strict=True):
            sizes = {"row": height // self.merge, "column": width // self.merge, "y": self.merge, "x": self.merge}
            grid = rearrange(row, "(row column y x) channel -> channel (row y) (column x)", **sizes)
            made = self.spatial_conv(grid[None])[0]
            mixed.append(rearrange(made, "channel (row y) (column x) -> (row column y x) channel", **sizes))
        return self.out_proj(gate_out * torch.cat(mixed))


class TowerLayer(nn.Module):
    def __init__(self, config: Any, kind: str) -> None:
        super().__init__()
        if kind == "conv":
            self.conv = TowerConvolution(config)
        else:
            self.self_attn = TowerAttention(config)
        self.feed_forward = mlp(config)
        self.operator_norm, self.ffn_norm = (nn.RMSNorm(config.hidden_size, eps=config.norm_eps) for _ in range(2))

    def forward(self, states: Tensor, position_embeddings: tuple[Tensor, Tensor], frames: Any) -> Tensor:
        normed = self.operator_norm(states)
        if hasattr(self, "conv"):
            made = self.conv(normed, frames)
        else:
            made = self.self_attn(normed, position_embeddings=position_embeddings, lengths=[h * w for h, w in frames])
        states = states + made
        return states + self.feed_forward(self.ffn_norm(states))


class Tower(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.spatial_merge_size = config, config.spatial_merge_size
        n_values = 3 * config.temporal_patch_size * config.patch_size**2
        self.patchifier = nn.Linear(n_values, config.hidden_size, bias=False)
        self.embedding_norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.layers = nn.ModuleList([TowerLayer(config, kind) for kind in config.layer_types])

    def forward(self, pixel_values: Tensor, grid_thw: Tensor) -> Tensor:
        frames = [(h, w) for n_frames, h, w in grid_thw.tolist() for _ in range(n_frames)]
        width = self.config.hidden_size // self.config.num_attention_heads
        frequencies = THETA ** (-torch.arange(0, width // 2, 2) / (width // 2))
        places = torch.cat([self.places(*frame) for frame in frames])
        angles = (places[..., None] * frequencies).flatten(1).repeat(1, 2)
        states = self.embedding_norm(self.patchifier(pixel_values))
        for layer in self.layers:
            states = layer(states, (angles.cos(), angles.sin()), frames)
        return states

    def places(self, height: int, width: int) -> Tensor:
        """Row and column of each patch of a frame, in the order of the tower's sequence."""
        grid = torch.cartesian_prod(torch.arange(height), torch.arange(width))
        merge = self.spatial_merge_size
        sizes = {"row": height // merge, "column": width // merge, "y": merge, "x": merge}
        return rearrange(grid, "(row y column x) place -> (row column y x) place", **sizes)


class Projector(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        vision, inner = config.vision_config, config.projector_hidden_size
        self.merged = vision.hidden_size * vision.spatial_merge_size**2
        self.layer_norm = nn.LayerNorm(vision.hidden_size, eps=1e-6)
        self.linear_1, self.linear_2 = nn.Linear(self.merged, inner), nn.Linear(inner, config.text_config.hidden_size)

    def forward(self, patches: Tensor) -> Tensor:
        merged = self.layer_norm(patches).reshape(-1, self.merged)
        return self.linear_2(nn.functional.gelu(self.linear_1(merged)))


class GatedAttention(Lfm2Attention):
    """Each head's output is scaled before the heads are joined."""

    def __init__(self, config: Any, number: int) -> None:
        super().__init__(config, number)
        self.gate_proj = nn.Linear(config.hidden_size, config.num_attention_heads, bias=False)
        self.out_proj.register_forward_pre_hook(self._scale)

    def forward(self, hidden_states: Tensor, **named: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._gates = self.gate_proj(hidden_states).sigmoid()
        return super().forward(hidden_states, **named)

    def _scale(self, module: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        by_head = args[0].unflatten(-1, (self._gates.shape[-1], -1))
        return (by_head * self._gates[..., None]).flatten(-2)


class DecoderLayer(Lfm2DecoderLayer):
    """Norms what it adds, and attends as its kind in LFM3 does."""

    def __init__(self, config: Any, number: int) -> None:
        super().__init__(config, number)
        self.kind, self.window = config.lfm3["layer_types"][number], config.lfm3["sliding_window"]
        if self.kind != "conv":
            self.self_attn = GatedAttention(config, number)
        self.post_operator_norm, self.post_ffn_norm = (
            nn.RMSNorm(config.hidden_size, eps=config.norm_eps) for _ in range(2)
        )

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, hidden_states: Tensor, position_embeddings: Any, **named: Any
    ) -> Tensor:
        normed = self.operator_norm(hidden_states)
        if self.kind == "sliding_attention":
            named["attention_mask"] = self.mask(hidden_states.shape[1], **named)
        if self.kind == "conv":
            made = self.conv(hidden_states=normed, **named)
        else:
            made, _ = self.self_attn(normed, position_embeddings=position_embeddings[self.kind], **named)
        states = hidden_states + self.post_operator_norm(made)
        return states + self.post_ffn_norm(self.feed_forward(self.ffn_norm(states)))

    def mask(self, n: int, past_key_values: Any = None, cache: Any = None, **others: Any) -> Tensor:
        """Which tokens each of the last `n` attends to. transformers 5.25 renames the cache."""
        before = next((one for one in (past_key_values, cache) if one is not None), None)
        n_before = 0 if before is None else before.get_seq_length(self.self_attn.layer_idx)
        age = torch.arange(n_before, n_before + n)[:, None] - torch.arange(n_before + n)
        return ((age >= 0) & (age < self.window))[None, None]


class Rotary(nn.Module):
    """Cosines and sines for each kind of attention, which may rotate only a part of a head."""

    def __init__(self, ropes: dict[str, Any], width: int) -> None:
        super().__init__()
        self.ropes, self.width = ropes, width

    def forward(self, x: Tensor, position_ids: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        found, places = {}, torch.arange(0, self.width, 2)
        for kind, rope in self.ropes.items():
            rotated = places < self.width * rope.get("partial_rotary_factor", 1.0)
            frequencies = rope["rope_theta"] ** (-places / self.width) * rotated
            angles = (position_ids[..., None] * frequencies).repeat(1, 1, 2)
            found[kind] = angles.cos(), angles.sin()
        return found


class LanguageModel(Lfm2Model):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList([DecoderLayer(config, number) for number in range(config.num_hidden_layers)])
        self.rotary_emb = Rotary(config.lfm3["rope_parameters"], config.lfm3["head_dim"])


class Lfm3VlModel(Lfm2VlPreTrainedModel):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.vision_tower = Tower(config.vision_config)
        self.multi_modal_projector = Projector(config)
        self.language_model = LanguageModel(config.text_config)

    def get_image_features(
        self, pixel_values: Tensor, image_grid_thw: Tensor, **others: Any
    ) -> BaseModelOutputWithPooling:
        merged = self.multi_modal_projector(self.vision_tower(pixel_values, grid_thw=image_grid_thw))
        sizes = image_grid_thw.prod(-1) // self.vision_tower.spatial_merge_size**2
        features: Any = merged.split(sizes.tolist())
        return BaseModelOutputWithPooling(pooler_output=features)

    def get_video_features(
        self, pixel_values_videos: Tensor, video_grid_thw: Tensor, **others: Any
    ) -> BaseModelOutputWithPooling:
        return self.get_image_features(pixel_values_videos, video_grid_thw)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        **others: Any,
    ) -> Any:
        embeds = self.language_model.get_input_embeddings()(input_ids)
        found = []
        if pixel_values is not None and image_grid_thw is not None:
            found.append((self.config.image_token_id, self.get_image_features(pixel_values, image_grid_thw)))
        if pixel_values_videos is not None and video_grid_thw is not None:
            found.append((self.config.video_token_id, self.get_video_features(pixel_values_videos, video_grid_thw)))
        for token, output in found:
            features: Any = output.pooler_output
            embeds = embeds.masked_scatter((input_ids == token)[..., None], torch.cat(list(features)))
        return self.language_model(inputs_embeds=embeds, **others)


class Lfm3VlForConditionalGeneration(Lfm2VlPreTrainedModel, transformers.GenerationMixin):
    """Takes one prompt at a time."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = Lfm3VlModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int = 0,
        return_dict: bool = True,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **others,
        )
        more = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return CausalLMOutputWithPast(logits=self.lm_head(outputs.last_hidden_state[:, -logits_to_keep:]), **more)


def mlp(config: Any) -> Lfm2MLP:
    sizes: Any = SimpleNamespace(hidden_size=config.hidden_size, intermediate_size=config.intermediate_size)
    sizes.block_auto_adjust_ff_dim = False
    return Lfm2MLP(sizes)
