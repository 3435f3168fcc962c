"""The thinkers of Qwen2.5-Omni and Qwen3-Omni as tiny models, saved as vLLM loads them: inside a whole model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig

from helpers.served.family import FAR_MROPE, Family
from helpers.served.models import CHAT, N_LAYERS, PATCH, QWEN_IMAGE, decoder, save, tokenizer
from tokenprune.adapters.families.qwen_omni import Qwen2_5OmniAdapter, Qwen3OmniAdapter
from tokenprune.adapters.registry import ADAPTERS

#: A sound in a prompt.
AUDIO = "<|audio_start|> <|audio_pad|> <|audio_end|>"
#: Class names by model_type.
NAMES = {"qwen2_5_omni": "Qwen2_5Omni", "qwen3_omni_moe": "Qwen3OmniMoe"}
#: Frequencies in the audio towers' input.
MELS = 8


def save_omni(folder: Path, kind: str, **settings: Any) -> None:
    """The thinker of Qwen2.5-Omni or, with experts, Qwen3-Omni, `kind` as in its model_type."""
    third = kind == "qwen3_omni_moe"
    name, patch = NAMES[kind], 16 if third else PATCH
    start, image, end = QWEN_IMAGE.split()
    marks = {"image_token": image, "vision_bos_token": start, "vision_eos_token": end, "video_token": "<|video_pad|>"}
    marks |= dict(zip(("audio_bos_token", "audio_token", "audio_eos_token"), AUDIO.split(), strict=True))
    words = tokenizer(**marks)
    ids = {mark: words.convert_tokens_to_ids(token) for mark, token in marks.items()}
    vision: dict[str, Any] = {"depth": N_LAYERS, "num_heads": 2, "patch_size": patch, "spatial_merge_size": 2}
    vision |= {"hidden_size": 64, "intermediate_size": 96, "out_hidden_size": 64}
    audio = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "d_model": 64}
    audio |= {"num_mel_bins": MELS, "max_source_positions": 64, "output_dim": 64}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]}
    text = decoder(len(words), rope_parameters=rope, tie_word_embeddings=False, **settings)
    tokens = {"vision_start_token_id": ids["vision_bos_token"], "vision_end_token_id": ids["vision_eos_token"]}
    tokens |= {"audio_start_token_id": ids["audio_bos_token"], "audio_end_token_id": ids["audio_eos_token"]}
    ending = "id" if third else "index"
    tokens |= {f"{mark}_token_{ending}": ids[f"{mark}_token"] for mark in ("image", "video", "audio")}
    if third:
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        vision |= {"image_size": 8 * patch, "apply_vit_abs_pos_embed": True}  # vLLM reads it
        audio |= {"n_window": 50, "n_window_infer": 100, "conv_chunksize": 8, "downsample_hidden_size": 4}
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "norm_topk_prob": True}
        rope["mrope_interleaved"] = True
    else:
        vision |= {"window_size": 4 * PATCH, "fullatt_block_indexes": [0, 2]}
        audio |= {"n_window": 4}
    thinker = getattr(transformers, f"{name}ThinkerConfig")(
        vision_config=vision, text_config=text, audio_config=audio, tie_word_embeddings=False, **tokens
    )
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if third else {}
    processor = getattr(transformers, f"{name}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(
            patch_size=patch, size={"shortest_edge": (4 * patch) ** 2, "longest_edge": (14 * patch) ** 2}, **halves
        ),
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=patch),
        feature_extractor=transformers.WhisperFeatureExtractor(feature_size=MELS, chunk_length=1),
        tokenizer=words,
        chat_template=CHAT.replace("IMAGE", QWEN_IMAGE),
    )
    save(getattr(transformers, f"{name}ThinkerForConditionalGeneration")(thinker), processor, folder)
    weights = load_file(folder / "model.safetensors")
    inside = {f"thinker.{one}": weight for one, weight in weights.items()}
    save_file(inside, folder / "model.safetensors", {"format": "pt"})
    whole: PreTrainedConfig = getattr(transformers, f"{name}Config")(
        thinker_config=thinker, enable_audio_output=False, architectures=[f"{name}ForConditionalGeneration"]
    )
    whole.save_pretrained(folder)


def thinker_class(config: PreTrainedConfig) -> Any:
    """Return transformers' class for the thinker in a whole model; None for the config of another model. tokenprune
    prunes it from transformers 5.24 on, here also in older ones, in which it has no base model."""
    if config.model_type not in NAMES:
        return None
    if not hasattr(transformers, "Qwen3OmniMoeThinkerModel"):
        for adapter in (OlderQwen2_5Omni, OlderQwen3Omni):
            ADAPTERS[adapter.class_name] = adapter
    else:
        Qwen2_5OmniAdapter.since = Qwen3OmniAdapter.since = Older.since
    return getattr(transformers, f"{NAMES[config.model_type]}ThinkerForConditionalGeneration")


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


FAMILIES = (
    Family("qwen2_5_omni", "TokenPruneQwen2_5Omni", partial(save_omni, kind="qwen2_5_omni"), QWEN_IMAGE, far=FAR_MROPE),
    Family(
        "qwen3_omni_moe", "TokenPruneQwen3Omni", partial(save_omni, kind="qwen3_omni_moe"), QWEN_IMAGE, far=FAR_MROPE
    ),
)
