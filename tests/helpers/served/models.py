"""Tiny models with random weights, saved with processor and tokenizer, as vLLM and transformers load them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

N_WORDS = 80
WORDS = [f"w{i}" for i in range(N_WORDS)]
PATCH = 14
#: An image in a prompt.
IMAGE = "<image>"
QWEN_IMAGE = "<|vision_start|> <|image_pad|> <|vision_end|>"
QWEN_VIDEO = QWEN_IMAGE.replace("image", "video")
INTERN_IMAGE = "<IMG_CONTEXT>"
#: The layers of every tower and of every language model.
N_LAYERS = 3


#: Class names of Qwen's families by model_type.
QWEN_NAMES = {
    "qwen2_vl": "Qwen2VL",
    "qwen2_5_vl": "Qwen2_5_VL",
    "qwen3_vl": "Qwen3VL",
    "qwen3_vl_moe": "Qwen3VLMoe",
    "qwen3_5": "Qwen3_5",
    "qwen3_5_moe": "Qwen3_5Moe",
}
#: Qwen3.5's decoder layers, two of which have a state. With the usual epsilon, norms of nearly zero states enlarge
#: rounding errors.
LINEAR = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "rms_norm_eps": 1e-3,
}


#: A chat template that joins messages without roles.
CHAT = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %} IMAGE {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} {% endfor %}"
)


def tokenizer(*specials: str, **named: str) -> Any:
    """Return a tokenizer with one token per `w0`, `w1`, ... and per special word. Processors know some by name."""
    words = list(dict.fromkeys(["<pad>", "<end>", *specials, *named.values(), *WORDS]))
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokens.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        eos_token="<end>",
        extra_special_tokens=named or list(specials),
        model_max_length=4096,
    )


def decoder(vocabulary: int, **settings: Any) -> dict[str, Any]:
    """Return the settings that all language models share. vLLM on a CPU needs heads of 32."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
        **settings,
    }


def tower(side: int, **settings: Any) -> dict[str, Any]:
    """Return the settings that square vision towers share. `side` is in pixels."""
    return {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": PATCH,
        **settings,
    }


#: Changes a weight's name and values to those of published checkpoints, if transformers saves different ones. It loads
#: both, but vLLM only the published ones.
Publish = Callable[[str, Tensor], tuple[str, Tensor]]


def save(model: nn.Module, processor: Any, folder: Path, publish: Publish | None = None) -> None:
    """Save a model whose attention is far from uniform."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                std = 0.25 if "embed_tokens" in name or "lm_head" in name else 0.15
                parameter.normal_(std=std, generator=generator)
            elif name.endswith(".A_log"):  # the decay of linear attention, which transformers draws without a seed
                parameter.uniform_(1, 16, generator=generator).log_()
    assert isinstance(model, transformers.PreTrainedModel)
    model.float().save_pretrained(folder)
    processor.save_pretrained(folder)
    if publish is not None:
        weights = load_file(folder / "model.safetensors")
        published = dict(publish(name, one) for name, one in weights.items())
        save_file(published, folder / "model.safetensors", {"format": "pt"})


def published_tower(name: str, weight: Tensor) -> tuple[str, Tensor]:
    """Published weights of LLaVA's CLIP and SigLIP towers are one module deeper."""
    if "vision_tower." in name and "vision_model." not in name:
        name = name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name, weight


def published_experts(name: str, weight: Tensor) -> tuple[str, Tensor]:
    """Published weights of Qwen3-VL's experts are transposed."""
    return name, weight.transpose(1, 2).contiguous() if ".experts." in name else weight


def save_llava(folder: Path, kind: str = "clip", side: int = 6 * PATCH, **settings: Any) -> None:
    """LLaVA-1.5 with 6 x 6 visual tokens."""
    words = tokenizer(IMAGE)
    towers = {"clip": transformers.CLIPVisionConfig, "siglip": transformers.SiglipVisionConfig}
    text = transformers.LlamaConfig(**decoder(len(words), **settings))
    strategy = "full" if kind == "siglip" else "default"
    config = transformers.LlavaConfig(
        vision_config=towers[kind](**tower(side)),
        text_config=text,
        image_token_index=words.convert_tokens_to_ids(IMAGE),
        vision_feature_select_strategy=strategy,
        image_seq_length=(side // PATCH) ** 2,
    )
    images = transformers.CLIPImageProcessor(
        size={"height": side, "width": side}, crop_size={"height": side, "width": side}, do_center_crop=False
    )
    processor = transformers.LlavaProcessor(
        image_processor=images,
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(kind == "clip"),
        image_token=IMAGE,
        chat_template=CHAT.replace("IMAGE", IMAGE),
    )
    save(transformers.LlavaForConditionalGeneration(config), processor, folder, published_tower)


def save_qwen(folder: Path, kind: str, **settings: Any) -> None:
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL or Qwen3.5, the latter two with experts or not, `kind` as in its model_type."""
    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    # transformers loads any Qwen3.5 tokenizer as byte-level BPE, in which only special tokens stay whole.
    words = tokenizer(*marks, *(WORDS if kind.startswith("qwen3_5") else ()))
    start, end, image, video = words.convert_tokens_to_ids(list(marks))
    name = QWEN_NAMES[kind]
    third = kind.startswith("qwen3")
    patch = 16 if third else PATCH
    vision: dict[str, Any] = {"depth": N_LAYERS, "num_heads": 2, "patch_size": patch, "spatial_merge_size": 2}
    if kind == "qwen2_vl":
        vision |= {"embed_dim": 64, "hidden_size": 64, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": 64, "intermediate_size": 96, "out_hidden_size": 64}
    if kind == "qwen2_5_vl":
        vision |= {"window_size": 4 * PATCH, "fullatt_block_indexes": [0, 2]}
    if third:
        vision |= {"num_position_embeddings": 64}
    if kind.startswith("qwen3_vl"):
        vision |= {"deepstack_visual_indexes": [0, 1]}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]}
    if kind.startswith("qwen3_5"):
        rope |= {"mrope_section": [2, 1, 1], "partial_rotary_factor": 0.25}
        settings = {**LINEAR, **settings}
    text = decoder(len(words), rope_parameters={**rope, "mrope_interleaved": True} if third else rope, **settings)
    if kind.endswith("_moe"):
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "norm_topk_prob": True}
    if kind == "qwen3_5_moe":
        text |= {"shared_expert_intermediate_size": 48}
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision,
        text_config=text,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if third else {}
    images = transformers.Qwen2VLImageProcessor(
        patch_size=patch, size={"shortest_edge": (4 * patch) ** 2, "longest_edge": (14 * patch) ** 2}, **halves
    )
    family = "Qwen3VL" if third else name
    processor = getattr(transformers, f"{family}Processor")(
        image_processor=images,
        tokenizer=words,
        video_processor=getattr(transformers, f"{'Qwen3VL' if third else 'Qwen2VL'}VideoProcessor")(patch_size=patch),
        chat_template=CHAT.replace("IMAGE", QWEN_IMAGE),
    )
    publish = published_experts if kind == "qwen3_vl_moe" else None
    save(getattr(transformers, f"{name}ForConditionalGeneration")(config), processor, folder, publish)


def save_llava_next(folder: Path, **settings: Any) -> None:
    """LLaVA-NeXT with tiles of 4 x 4 visual tokens, up to four and an overview."""
    side, words = 4 * PATCH, tokenizer(IMAGE)
    pinpoints = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side]]
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**tower(side)),
        text_config=transformers.LlamaConfig(**decoder(len(words), **settings)),
        image_token_index=words.convert_tokens_to_ids(IMAGE),
        image_grid_pinpoints=pinpoints,
        image_seq_length=16,
    )
    images = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_grid_pinpoints=pinpoints
    )
    processor = transformers.LlavaNextProcessor(
        image_processor=images,
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT.replace("IMAGE", IMAGE),
    )
    save(transformers.LlavaNextForConditionalGeneration(config), processor, folder, published_tower)


def save_llava_onevision(folder: Path, **settings: Any) -> None:
    """LLaVA-OneVision with tiles of 4 x 4 visual tokens; those of large images are resized."""
    side, words = 4 * PATCH, tokenizer(IMAGE, "<video>")
    pinpoints = [[rows * side, columns * side] for rows in range(1, 5) for columns in range(1, 5)]
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(**tower(side, vision_use_head=False)),
        text_config=transformers.Qwen2Config(**decoder(len(words), **settings)),
        image_token_index=words.convert_tokens_to_ids(IMAGE),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )
    images = transformers.LlavaOnevisionImageProcessor(
        size={"height": side, "width": side}, image_grid_pinpoints=pinpoints
    )
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=images,
        tokenizer=words,
        video_processor=transformers.LlavaOnevisionVideoProcessor(size={"height": side, "width": side}),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        image_token=IMAGE,
        video_token="<video>",
        vision_aspect_ratio="anyres_max_9",
        chat_template=CHAT.replace("IMAGE", IMAGE),
    )
    save(transformers.LlavaOnevisionForConditionalGeneration(config), processor, folder, published_tower)


def save_internvl(folder: Path, **settings: Any) -> None:
    """InternVL with tiles of 3 x 3 visual tokens, up to four and an overview."""
    side = 6 * PATCH
    words = tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token=INTERN_IMAGE,
        video_token="<video>",
    )
    config = transformers.InternVLConfig(
        vision_config=transformers.InternVLVisionConfig(**tower(side)),
        text_config=transformers.Qwen2Config(**decoder(len(words), **settings)),
        image_token_id=words.convert_tokens_to_ids(INTERN_IMAGE),
        image_seq_length=9,
    )
    images = transformers.GotOcr2ImageProcessor(
        size={"height": side, "width": side}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = transformers.InternVLProcessor(
        image_processor=images,
        tokenizer=words,
        video_processor=transformers.InternVLVideoProcessor(size={"height": side, "width": side}),
        image_seq_length=9,
        chat_template=CHAT.replace("IMAGE", INTERN_IMAGE),
    )
    save(transformers.InternVLForConditionalGeneration(config), processor, folder)
