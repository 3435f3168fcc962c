"""How transformers 5.19, with which vLLM 0.32 runs, computes the same as vLLM and as later releases."""

from functools import cache, wraps
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedConfig

from tokenprune.adapters.families.qwen_omni import Qwen2_5OmniAdapter, Qwen3OmniAdapter
from tokenprune.adapters.registry import ADAPTERS

#: Class names of thinkers by the model_type of the whole model.
OMNI = {"qwen2_5_omni": "Qwen2_5Omni", "qwen3_omni_moe": "Qwen3OmniMoe"}
#: Settings of a plain decoder.
SETTINGS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SETTINGS += ("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_parameters")
SETTINGS += ("pad_token_id", "bos_token_id", "eos_token_id")


def thinker_class(config: PreTrainedConfig) -> Any:
    """Return transformers' class for the thinker in a whole model; None for the config of another model. tokenprune
    prunes it from transformers 5.24 on, here also in older ones, in which it has no base model."""
    if config.model_type not in OMNI:
        return None
    if not hasattr(transformers, "Qwen3OmniMoeThinkerModel"):
        for adapter in (OlderQwen2_5Omni, OlderQwen3Omni):
            ADAPTERS[adapter.class_name] = adapter
    else:
        Qwen2_5OmniAdapter.since = Qwen3OmniAdapter.since = Older.since
    return getattr(transformers, f"{OMNI[config.model_type]}ThinkerForConditionalGeneration")


class Older:
    """The thinker as one module, which contains both the decoder and the towers."""

    model: Any
    since = (5, 19)

    @property
    def core(self) -> Any:
        return self.model

    @property
    def language_model(self) -> Any:
        return self.model.model


class OlderQwen2_5Omni(Older, Qwen2_5OmniAdapter):
    class_name = "Qwen2_5OmniThinkerForConditionalGeneration"


class OlderQwen3Omni(Older, Qwen3OmniAdapter):
    class_name = "Qwen3OmniMoeThinkerForConditionalGeneration"


def rotate_like_qwen3() -> None:
    """Correct transformers 5.19, in which the components of Cohere Compass's position IDs rotate sections, of
    frequencies in a different order. In 5.24, vLLM and Qwen3-VL, they alternate."""
    from transformers.models.cohere_compass import modeling_cohere_compass as modeling

    rotary: Any = modeling.CohereCompassRotaryEmbedding
    if not hasattr(rotary, "recomposition_frequencies"):
        return

    def frequencies(config: Any, device: Any = None, layer_type: str | None = None, **_: Any) -> tuple[Tensor, float]:
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float, device=device) / config.head_dim
        return config.rope_parameters[layer_type]["rope_theta"] ** -exponents, 1.0

    def in_turn(self: Any, waves: Tensor, layer_type: str) -> Tensor:
        """Return, for each frequency, the waves (components, batch, positions, frequencies) of one component."""
        place = torch.arange(waves.shape[-1], device=waves.device)
        limits = 3 * torch.tensor(self.mrope_section[layer_type], device=waves.device)
        component = (place % 3).where(place < limits[place % 3], 0)
        return waves.gather(0, component.expand(1, *waves.shape[1:]))[0].repeat(1, 1, 2)

    rotary.compute_default_rope_parameters = staticmethod(frequencies)
    rotary.recomposition_frequencies = in_turn


def take_older_transformers() -> None:
    """Let `patch` accept LFM2-VL in transformers before 5.24, since vLLM uses an older one. A single prompt is pruned
    in 5.19 as in 5.24."""
    from tokenprune.adapters.families.lfm2_vl import Lfm2VlAdapter

    Lfm2VlAdapter.since = (5, 19)


@cache
def attend_causally_without_windows() -> None:
    """Correct Gemma 4 without a vision tower in transformers 5.19: its layers without a window attend in both
    directions within images, unlike Gemma 4, its own masks for static caches, and vLLM."""
    from transformers.models.gemma4_unified import modeling_gemma4_unified

    modeling: Any = modeling_gemma4_unified
    original = modeling.create_masks_for_generate

    def masks(**named: Any) -> Any:
        make = modeling.create_masks_for_vision_model if "block_sequence_ids" in named else original
        return make(**named)

    modeling.create_masks_for_generate = masks


@cache
def decode_plainly() -> None:
    """Use a plain decoder in every GLM-5-Next that transformers makes in this process, since the kernels of its own run
    only on GPUs. It numbers the tokens in its cache itself."""
    from transformers.modeling_outputs import MoeModelOutputWithPast
    from transformers.models.glm5_next import modeling_glm5_next

    modeling: Any = modeling_glm5_next

    class Decoder(transformers.LlamaModel):
        """Ignores position IDs, like GLM-5-Next."""

        def __init__(self, config: Any) -> None:
            settings: dict[str, Any] = {name: getattr(config, name) for name in SETTINGS}
            settings["attn_implementation"] = config._attn_implementation
            super().__init__(transformers.LlamaConfig(**settings))

        def forward(self, *args: Any, position_ids: Any = None, **named: Any) -> Any:
            return MoeModelOutputWithPast(**super().forward(*args, **named))

    modeling.Glm5NextTextModel = Decoder


@cache
def attend_to_everything() -> None:
    """Let tokenprune patch transformers' model with position IDs that have gaps, although its attention has code that
    chooses blocks, because no layer runs that code here."""
    from transformers.models.minimax_m3_vl import modeling_minimax_m3_vl

    attention: Any = modeling_minimax_m3_vl.MiniMaxM3VLAttention
    attend = attention.forward

    def forward(self: Any, *args: Any, **named: Any) -> Any:
        assert self.indexer is None
        return attend(self, *args, **named)

    attention.forward = forward


def see_images_apart(model: Any) -> None:
    """Correct transformers 5.19, in which patches attend to all images of a call, instead of only to their own
    image."""
    sizes: list[int] = []

    def before_tower(module: nn.Module, args: Any, kwargs: Any) -> None:
        sizes[:] = kwargs["grid_thw"].prod(-1).tolist()

    def before_layer(module: nn.Module, args: Any, kwargs: Any) -> Any:
        image = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        return args, {**kwargs, "attention_mask": (image[:, None] == image)[None, None]}

    vision = model.model.vision_tower
    vision.register_forward_pre_hook(before_tower, with_kwargs=True)
    for layer in vision.layers:
        layer.register_forward_pre_hook(before_layer, with_kwargs=True)


def with_chunks(inputs: Any, chunks: list[list[Image.Image]], processor: Any) -> Any:
    """Return inputs in which the last images, each the first frame of a chunk, are replaced by whole chunks of equal
    length. The processor itself would write times between frames."""
    grids, pixels, ids = inputs["image_grid_thw"], inputs["pixel_values"], inputs["input_ids"]
    images, frames = grids[: -len(chunks)], [frame for one in chunks for frame in one]
    n_patches, visual = int(images.prod(-1).sum()), ids == processor.image_token_id
    of_chunks = visual & (visual.cumsum(-1) > n_patches // processor.image_processor.merge_size**2)
    inputs["input_ids"] = ids.masked_fill(of_chunks, processor.video_token_id)
    inputs["pixel_values_videos"] = processor.image_processor(frames, return_tensors="pt")["pixel_values"]
    inputs["video_grid_thw"] = grids[-len(chunks) :] * torch.tensor([[len(chunks[0]), 1, 1]])
    if len(images):
        inputs["image_grid_thw"], inputs["pixel_values"] = images, pixels[:n_patches]
    else:
        del inputs["image_grid_thw"], inputs["pixel_values"]
    return inputs


def count_averaged_frames() -> None:
    """Correct transformers 5.19, which splits the features of chunks as if the tower did not average their frames."""
    from transformers.models.kimi_k25.modeling_kimi_k25 import Kimi_K25Model

    original: Any = Kimi_K25Model.get_image_features

    @wraps(original)
    def of_frames(self: Any, pixel_values: Tensor, image_grid_thw: Tensor, **kwargs: Any) -> Any:
        side = self.vision_tower.merge_kernel_size[0]
        output = self.vision_tower(pixel_values, grid_thw=image_grid_thw)
        features = self.mm_projector(output.pooler_output).squeeze(1)
        output.pooler_output = features.split((image_grid_thw[:, 1:].prod(-1) // side**2).tolist())
        return output

    Kimi_K25Model.get_image_features = of_frames  # pyright: ignore[reportAttributeAccessIssue]
