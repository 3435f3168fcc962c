"""A tiny GLM-5-Next in which a plain decoder stands in for the language model, whose kernels run only on GPUs.

In vLLM it is a Llama that uses the language model's position IDs; in transformers, one that numbers the tokens in its
cache itself.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor
from torch.nn.functional import rms_norm

from helpers.served.family import Family
from helpers.served.models import CHAT, N_LAYERS, PATCH, decoder, save, tokenizer
from helpers.served.native.glm import GLM_IMAGE, GLM_VIDEO, MARKS

NAME = "TokenPruneGlm5Next"
#: The settings that both decoders read.
NAMES = (*decoder(0), "rms_norm_eps", "rope_parameters")


@cache
def decode_plainly() -> None:
    """Use the stand-in in every GLM-5-Next that transformers makes in this process."""
    from transformers.modeling_outputs import MoeModelOutputWithPast
    from transformers.models.glm5_next import modeling_glm5_next

    modeling: Any = modeling_glm5_next

    class Decoder(transformers.LlamaModel):
        """Ignores position IDs, like GLM-5-Next."""

        def __init__(self, config: Any) -> None:
            settings: dict[str, Any] = {name: getattr(config, name) for name in NAMES if name != "head_dim"}  # it is 0
            settings["attn_implementation"] = config._attn_implementation
            super().__init__(transformers.LlamaConfig(**settings))

        def forward(self, *args: Any, position_ids: Any = None, **named: Any) -> Any:
            return MoeModelOutputWithPast(**super().forward(*args, **named))

    modeling.Glm5NextTextModel = Decoder


def serve_plainly() -> None:
    """The same for vLLM, after our plug-in has registered the model."""
    from vllm import ModelRegistry
    from vllm.models.glm5next.common import multimodal

    from tokenprune.serving.vllm.models.glm5_next import PrunedGlm5Next

    class WithoutStates(PrunedGlm5Next):
        """The stand-in has no linear attention."""

        has_inner_state = is_hybrid = False

    multimodal.fused_q_kv_rmsnorm = norm_both  # vLLM's kernel takes minutes in Triton's interpreter
    ModelRegistry.register_model(NAME, WithoutStates)
    ModelRegistry.register_model("Glm5NextForCausalLM", "vllm.model_executor.models.llama:LlamaForCausalLM")


def norm_both(
    query: Tensor, key: Tensor, query_weight: Tensor, key_weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Normalise queries and keys of a vision tower layer, each (patches * heads, width)."""
    given = ((query, query_weight), (key, key_weight))
    normed = [rms_norm(states, weight.shape, weight, epsilon) for states, weight in given]
    return normed[0], normed[1]


def save_glm5_next(folder: Path, **settings: Any) -> None:
    """GLM-5-Next with up to 49 visual tokens, each of 2 x 2 patches."""
    words = tokenizer(*MARKS)
    image, video, *ends = words.convert_tokens_to_ids(list(MARKS))
    names = ("image_start_token_id", "image_end_token_id", "video_start_token_id", "video_end_token_id")
    text = decoder(
        len(words),
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        layer_types=["indexed_attention"] * N_LAYERS,
        linear_num_heads=2,
        linear_head_dim=8,
        **settings,
    )
    vision: dict[str, Any] = {"depth": N_LAYERS, "num_heads": 2, "hidden_size": 64, "intermediate_size": 96}
    vision |= {"patch_size": PATCH, "out_hidden_size": 64, "projection_intermediate_size": 96, "swiglu_limit": 1.0}
    config = transformers.Glm5NextConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image,
        video_token_id=video,
        **dict(zip(names, ends, strict=True)),
    )
    sizes = {"min_image_tokens": 4, "max_image_tokens": 49}
    processor = transformers.Glm5NextProcessor(
        image_processor=transformers.Glm5NextImageProcessor(**sizes),
        tokenizer=words,
        video_processor=transformers.Glm5NextVideoProcessor(**sizes),
        chat_template=CHAT.replace("IMAGE", GLM_IMAGE),
    )
    decode_plainly()
    save(transformers.Glm5NextForConditionalGeneration(config), processor, folder)


FAMILIES = (Family("glm5_next", "TokenPruneGlm5Next", save_glm5_next, GLM_IMAGE, GLM_VIDEO),)
