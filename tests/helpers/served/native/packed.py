"""Tiny models whose towers get the patches of an image in a sequence, saved as vLLM and transformers load them."""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from helpers.served.family import FAR_COUNTED, FAR_MROPE, OWN_ROTATION, Family, Far
from helpers.served.models import CHAT, N_LAYERS, PATCH, QWEN_IMAGE, QWEN_VIDEO, decoder, save, tokenizer, tower

PADDLE_IMAGE = "<|IMAGE_START|> <|IMAGE_PLACEHOLDER|> <|IMAGE_END|>"
LIGHTON_IMAGE = "<|image_pad|>"
#: Its processor wants nothing between the marks.
HUNYUAN_VISUAL = "<image>"
HUNYUAN_IMAGE = f"<start>{HUNYUAN_VISUAL}<end>"
KIMI_IMAGE = "<|media_begin|> <|media_pad|> <|media_end|>"
#: The fewest and the most pixels of an image.
SIZES = {"shortest_edge": (4 * PATCH) ** 2, "longest_edge": (14 * PATCH) ** 2}


def save_paddleocr_vl(folder: Path, **settings: Any) -> None:
    """PaddleOCR-VL with up to 49 visual tokens, each of 2 x 2 patches."""
    start, image, end = PADDLE_IMAGE.split()
    words = tokenizer(start, end, image_token=image)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]}
    config = transformers.PaddleOCRVLConfig(
        vision_config=tower(8 * PATCH, spatial_merge_size=2),
        text_config=decoder(len(words), rope_parameters=rope, tie_word_embeddings=False, **settings),
        image_token_id=words.convert_tokens_to_ids(image),
        vision_start_token_id=words.convert_tokens_to_ids(start),
        vision_end_token_id=words.convert_tokens_to_ids(end),
        tie_word_embeddings=False,
    )
    processor = transformers.PaddleOCRVLProcessor(
        image_processor=transformers.PaddleOCRVLImageProcessor(patch_size=PATCH, size=SIZES),
        tokenizer=words,
        chat_template=CHAT.replace("IMAGE", PADDLE_IMAGE),
    )
    save(transformers.PaddleOCRVLForConditionalGeneration(config), processor, folder, without_position_embeddings)


def without_position_embeddings(name: str, weight: Tensor) -> tuple[str, Tensor]:
    """Set the position embeddings of PaddleOCR-VL's tower to zero, because vLLM resizes them differently from
    transformers. The tower still has rotary embeddings."""
    return name, torch.zeros_like(weight) if "position_embedding" in name else weight


def save_hunyuan_vl(folder: Path, **settings: Any) -> None:
    """HunyuanOCR, saved by another process: vLLM's Transformers backend changes transformers' classes in its own."""
    from helpers.served.engine import reference_process

    reference_process().submit(_save_hunyuan_vl, folder, settings).result()


def _save_hunyuan_vl(folder: Path, settings: dict[str, Any]) -> None:
    """HunyuanOCR with up to 49 visual tokens, each of 2 x 2 patches, besides newline tokens. As in the published model,
    rotary embeddings are dynamic, with frequencies that depend on a setting; here, all of them matter."""
    words = tokenizer(image_token=HUNYUAN_VISUAL, image_start_token="<start>", image_end_token="<end>")
    rope = {"rope_type": "dynamic", "rope_theta": 100.0, "alpha": 10.0, "factor": 1.0, "mrope_section": [4, 4, 4, 4]}
    longer = {"max_position_embeddings": 2048, **settings}  # without a table, prompts end there
    vision = tower(0, num_channels=3, spatial_merge_size=2, max_image_size=8 * PATCH, out_hidden_size=64)
    del vision["image_size"]
    config = transformers.HunYuanVLConfig(
        vision_config=vision,
        text_config=decoder(len(words), rope_parameters=rope, tie_word_embeddings=False, **longer),
        image_token_id=words.image_token_id,
        im_start_id=words.image_start_token_id,
        im_end_id=words.image_end_token_id,
        tie_word_embeddings=False,
    )
    processor = transformers.HunYuanVLProcessor(
        image_processor=transformers.HunYuanVLImageProcessor(patch_size=PATCH, size=SIZES),
        tokenizer=words,
        chat_template=CHAT.replace("IMAGE", HUNYUAN_IMAGE),
    )
    save(transformers.HunYuanVLForConditionalGeneration(config), processor, folder)


@cache
def run_hunyuan_on_cpus() -> None:
    """vLLM's kernel for linear layers on CPUs takes contiguous inputs only, and HunyuanOCR's tower gives it others."""
    module: Any = import_module("vllm._cpu_ops" if find_spec("vllm._cpu_ops") else "vllm._custom_ops")  # up to 0.33
    original = module.onednn_mm
    module.onednn_mm = lambda handler, x, bias: original(handler, x.contiguous(), bias)


def save_exaone4_5(folder: Path, window: int = 4096, **settings: Any) -> None:
    """EXAONE 4.5. One of three tower layers has windows of 2 x 2 visual tokens; one of three decoder layers has none,
    and does not rotate."""
    words = tokenizer(*QWEN_IMAGE.split(), *QWEN_VIDEO.split())
    _, image, _ = words.convert_tokens_to_ids(QWEN_IMAGE.split())
    _, video, _ = words.convert_tokens_to_ids(QWEN_VIDEO.split())
    vision = {"depth": N_LAYERS, "num_heads": 4, "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 96}
    vision |= {"patch_size": PATCH, "window_size": 4 * PATCH, "fullatt_block_indexes": [0, 2], "out_hidden_size": 64}
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    text = decoder(len(words), model_type="exaone4", sliding_window=window, layer_types=kinds, **settings)
    config = transformers.Exaone4_5_Config(
        vision_config=vision, text_config=text, image_token_id=image, video_token_id=video, tie_word_embeddings=False
    )
    processor = transformers.Exaone4_5_Processor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=PATCH, size=SIZES),
        tokenizer=words,
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=PATCH),
        chat_template=CHAT.replace("IMAGE", QWEN_IMAGE),
    )
    save(transformers.Exaone4_5_ForConditionalGeneration(config), processor, folder)


def save_lighton_ocr(folder: Path, **settings: Any) -> None:
    """LightOn OCR with up to 12 x 12 visual tokens of 2 x 2 patches."""
    marks = {"image_token": LIGHTON_IMAGE, "image_break_token": "<break>", "image_end_token": "<last>"}
    side, words = 24 * PATCH, tokenizer(**marks)
    image = words.convert_tokens_to_ids(LIGHTON_IMAGE)
    config = transformers.LightOnOcrConfig(
        vision_config={**tower(side), "model_type": "pixtral"},
        text_config=decoder(len(words), model_type="qwen3", rms_norm_eps=1e-5, **settings),
        image_token_id=image,
        tie_word_embeddings=False,
    )
    processor = transformers.LightOnOcrProcessor(
        image_processor=transformers.PixtralImageProcessor(size={"longest_edge": side}, patch_size=2 * PATCH),
        tokenizer=words,
        patch_size=PATCH,
        spatial_merge_size=2,
        chat_template=CHAT.replace("IMAGE", LIGHTON_IMAGE),
    )
    save(transformers.LightOnOcrForConditionalGeneration(config), processor, folder)
    published = {"model_type": "mistral3", "architectures": ["LightOnOCRForConditionalGeneration"]}
    published |= {"image_token_index": image, "multimodal_projector_bias": False}
    rewrite(folder / "config.json", lambda written: {**written, **published})
    rewrite(folder / "processor_config.json", lambda written: {**written, **marks})


def save_kimi(folder: Path, *more: str, **settings: Any) -> None:
    """Kimi K2.5 with visual tokens of 2 x 2 patches, and `more` tokens. Two of three decoder layers have experts."""
    marks, video = KIMI_IMAGE.split(), "<|kimi_k25_video_placeholder|>"
    words = tokenizer(*marks, video, *more)
    start, image, end = words.convert_tokens_to_ids(marks)
    latent = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 32}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
    published = {"topk_method": "noaux_tc", "scoring_func": "sigmoid", "first_k_dense_replace": 1}
    text = {**latent, **experts, **published, "moe_intermediate_size": 48, "head_dim": 16, **settings}
    vision = {**tower(0), "pos_emb_height": 8, "pos_emb_width": 8}
    del vision["image_size"]
    config = transformers.Kimi_K25Config(
        vision_config=vision,
        text_config=decoder(len(words), **text),
        projection_hidden_size=64,
        image_token_id=image,
        video_token_id=words.convert_tokens_to_ids(video),
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    processor = transformers.Kimi_K25Processor(
        image_processor=transformers.Kimi_K25ImageProcessor(patch_size=PATCH),
        tokenizer=words,
        video_processor=transformers.Kimi_K25VideoProcessor(patch_size=PATCH),
        chat_template=CHAT.replace("IMAGE", KIMI_IMAGE),
    )
    save(
        transformers.Kimi_K25ForConditionalGeneration(config),
        processor,
        folder,
        partial(published_kimi, placeholders=[image, words.convert_tokens_to_ids(video)]),
    )
    rewrite(folder / "config.json", lambda written: {**written, "use_unified_vision_chunk": True})
    rewrite(folder / "processor_config.json", with_media_settings)


def published_kimi(name: str, weight: Tensor, placeholders: list[int]) -> tuple[str, Tensor]:
    """Rename weights of Kimi that are saved under names that neither library loads."""
    _, weight = with_plain_placeholders(name, weight, placeholders)
    name = name.replace("language_model.model.blocks.", "language_model.model.layers.")
    name = name.replace("vision_tower.encoder.patch_embed.", "vision_tower.patch_embed.")
    return name.replace("model.mm_projector.", "mm_projector."), weight


def with_plain_placeholders(name: str, weight: Tensor, placeholders: list[int]) -> tuple[str, Tensor]:
    """If a model answers with a placeholder token, transformers may embed the vocabulary's first token instead, so both
    get the same embedding here."""
    if name.endswith("embed_tokens.weight"):
        weight = weight.clone()
        weight[placeholders] = weight[0].clone()
    return name, weight


def with_media_settings(written: dict[str, Any]) -> dict[str, Any]:
    """Return a processor's config with the settings that vLLM's own image processor for Kimi reads."""
    limits = {"in_patch_limit": 16384, "in_patch_limit_each_frame": 4096, "in_patch_limit_video": 65536}
    sizes = {"patch_size": PATCH, "merge_kernel_size": 2, "temporal_merge_kernel_size": 4}
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    media = {**limits, **sizes, **halves, "patch_limit_on_one_side": 512, "fixed_output_tokens": None}
    return {**written, "image_processor": {**written["image_processor"], "media_proc_cfg": media}}


def rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change a JSON file, because published checkpoints differ from what transformers saves."""
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


FAMILIES = (
    Family("paddleocr_vl", "TokenPrunePaddleOCRVL", save_paddleocr_vl, PADDLE_IMAGE, far=FAR_MROPE),
    Family("hunyuan_vl", "TokenPruneHunyuanVL", save_hunyuan_vl, HUNYUAN_IMAGE, far=None, visual_token=HUNYUAN_VISUAL),
    Family(
        "exaone4_5",
        "TokenPruneExaone4_5",
        save_exaone4_5,
        QWEN_IMAGE,
        QWEN_VIDEO,
        far=FAR_COUNTED,
        n_blocks=30,
    ),
    Family("lighton_ocr", "TokenPruneLightOnOCR", save_lighton_ocr, LIGHTON_IMAGE, far=Far(256, 8, (196, 196))),
    Family(
        "kimi_k25",
        "TokenPruneKimiK25",
        save_kimi,
        KIMI_IMAGE,
        far=Far(256, 8, (196, 196), raises="index out of range"),
        options=OWN_ROTATION,
    ),
)
