"""A tiny Step 3.7, saved as published: the code of its config is inside, which vLLM reads with trust_remote_code."""

# pyright: reportMissingImports=false

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import torch
import transformers

from helpers.served.family import Family, Far
from helpers.served.models import CHAT, N_LAYERS, PATCH, decoder, save, tokenizer
from helpers.served.native.packed import rewrite

STEP_IMAGE = "<im_patch>"
MARKS = ("<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>")
#: The sides in pixels of an image and of a crop: 3 x 3 and 2 x 2 visual tokens of 4 x 4 patches.
WHOLE, CROP = 12 * PATCH, 8 * PATCH
#: vLLM's CPU kernel rotates the wrong values if only part of each head is rotated.
STEP_OPTIONS = {
    "trust_remote_code": True,
    "compilation_config": {"custom_ops": ["all", "-rotary_embedding"]},
}
#: The longer side in pixels of the largest image.
MOST = 2 * CROP
#: Names of its language model's settings: published -> in transformers.
PUBLISHED = {
    "num_attention_groups": "num_key_value_heads",
    "moe_num_experts": "n_routed_experts",
    "moe_top_k": "num_experts_per_tok",
}
CODE = """
from transformers import PretrainedConfig


class VisionConfig(PretrainedConfig):
    def __init__(self, **settings):
        for name, value in settings.items():
            setattr(self, name, value)
        super().__init__()


class TextConfig(PretrainedConfig):
    model_type = "step3p5"

    def __init__(self, **settings):
        for name, value in settings.items():
            setattr(self, name, value)
        super().__init__(architectures=["Step3p5ForCausalLM"], bos_token_id=None, eos_token_id=1, pad_token_id=0)


class Step3p7Config(PretrainedConfig):
    model_type = "step3p7"

    def __init__(self, vision_config=None, text_config=None, **kwargs):
        self.vision_config = VisionConfig(**(vision_config or {}))
        self.text_config = TextConfig(**(text_config or {}))
        super().__init__(**kwargs)
"""


def save_step(folder: Path, window: int = 4096, **settings: Any) -> None:
    """Step 3.7. One of three decoder layers has a window and more heads; two have experts."""
    processor = step_processor()
    words, vision = processor.tokenizer, step_tower()
    text = decoder(len(words), sliding_window=window, **settings)
    text |= {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}
    heads = {"num_attention_heads": 4, "num_attention_groups": 2, "head_dim": 32}
    text |= {"attention_other_setting": {"attention_type": "sliding_attention", **heads}}
    text |= {"rope_theta": [1e4, 1e5, 1e4], "partial_rotary_factors": [0.5, 1.0, 0.5], "moe_layers_enum": "1,2"}
    text |= {"num_experts_per_tok": 2, "moe_intermediate_size": 48, "share_expert_dim": 48}
    text |= {"moe_router_scaling_factor": 2.0, "rms_norm_eps": 1e-5, "n_routed_experts": 4}
    config = transformers.Step3p7Config(
        vision_config=dict(vision), text_config=dict(text), image_token_id=words.convert_tokens_to_ids(STEP_IMAGE)
    )
    save(transformers.Step3p7ForConditionalGeneration(config), processor, folder)
    text |= {theirs: text.pop(ours) for theirs, ours in PUBLISHED.items()}
    text |= {"att_impl_type": "GQA", "moe_router_activation": "sigmoid", "tie_word_embeddings": False}
    text |= dict.fromkeys(("use_moe_router_bias", "need_fp32_gate", "use_head_wise_attn_gate"), True)
    text |= {"norm_expert_weight": True, "swiglu_limits": None, "swiglu_limits_shared": None}
    code = {"auto_map": {"AutoConfig": "configuration_step3p7.Step3p7Config"}}
    rewrite(folder / "config.json", lambda written: {**written, **code, "vision_config": vision, "text_config": text})
    (folder / "configuration_step3p7.py").write_text(CODE)


def step_tower() -> dict[str, Any]:
    """Return the settings of the tower, under their published names."""
    vision = {"width": 64, "layers": N_LAYERS, "heads": 2, "mlp_ratio": 1.5, "image_size": WHOLE, "patch_size": PATCH}
    vision |= {"hidden_act": "quick_gelu", "ls_init_value": 0.1, "output_dim": None}
    vision |= dict.fromkeys(("use_abs_posemb", "use_rope2d", "use_ln_pre"), True)
    return vision | dict.fromkeys(("use_cls_token", "use_ln_post"), False)


def step_processor() -> Any:
    """Return transformers' processor, with a tokenizer."""
    return transformers.Step3p7Processor(
        image_processor=transformers.Step3p7ImageProcessor(size={"height": WHOLE, "width": WHOLE}, patch_size=CROP),
        tokenizer=tokenizer(STEP_IMAGE, *MARKS),
        chat_template=CHAT.replace("IMAGE", STEP_IMAGE),
    )


def see_as_transformers() -> None:
    """Make vLLM cut and resize images like transformers, since its own processor hardcodes the published sizes of crops
    and rounds differently, and make its tower rotate by the row of a patch first, instead of by the column."""
    from vllm.model_executor.models import step3_vl, step_vl

    class Images(step3_vl.Step3VLImageProcessor):
        def __init__(self, enable_patch: bool = True) -> None:
            super().__init__(WHOLE, CROP, num_image_feature_size=9, num_patch_feature_size=4, enable_patch=enable_patch)

        @property
        def _theirs(self) -> Any:
            size = {"height": self.image_size, "width": self.image_size}
            return transformers.Step3p7ImageProcessor(size=size, patch_size=self.patch_size, max_image_size=MOST)

        def get_num_image_tokens(self, img_width: int, img_height: int) -> int:
            *_, columns, rows, _ = self._theirs._plan_patches(img_width, img_height, self.image_size, self.patch_size)
            newlines = max(rows - 1, 0)
            return columns * rows * (self.num_patch_feature_size + 2) + self.num_image_feature_size + 2 + newlines

        def __call__(self, images: Any, return_tensors: Any = None) -> Any:
            made = self._theirs(images, return_tensors="pt")
            counts, none = made["num_local_patches"].tolist(), torch.zeros(0, 3, self.patch_size, self.patch_size)
            masks = zip(made.get("patch_newline_masks", [[]] * len(counts)), counts, strict=True)
            newlines = [one for mask, n in masks for one in mask[:n]]
            crops = {"patch_pixel_values": made.get("pixel_values_local", none)}
            crops |= {"num_patches": counts, "patch_newline_mask": torch.tensor(newlines, dtype=torch.bool)}
            made = {"pixel_values": made["pixel_values"], **crops}
            return transformers.BatchFeature(made, tensor_type=return_tensors)

    rope: Any = step_vl.PerceptionEncoderRope2D
    angles = rope._compute_2d_freqs
    if step3_vl.MAX_IMAGE_SIZE != MOST:
        step3_vl.Step3VLImageProcessor, step3_vl.MAX_IMAGE_SIZE = Images, MOST
        rope._compute_2d_freqs = lambda self: angles(self).roll(self.dim // 2, -1)


def run_step_on_cpus() -> None:
    """On a CPU, vLLM supports experts chosen by sigmoids or with a bias only in groups, so all experts are one group
    here. Its matrix product takes no transposed features."""
    from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter
    from vllm.model_executor.models.step_vl import PerceptionEncoder

    make, encode = CPURouter.__init__, PerceptionEncoder.forward

    @wraps(make)
    def grouped(self: Any, *args: Any, **settings: Any) -> None:
        make(self, *args, **settings)
        biased = self.scoring_func == "softmax" and self.e_score_correction_bias is not None
        if (self.scoring_func == "sigmoid" or biased) and not self.use_grouped_topk:
            self.use_grouped_topk, self.num_expert_group, self.topk_group = True, 1, 1

    if not hasattr(make, "__wrapped__"):
        CPURouter.__init__ = grouped
        PerceptionEncoder.forward = wraps(encode)(lambda self, pixels: encode(self, pixels).contiguous())


FAMILIES = (
    Family(
        "step3p7",
        "TokenPruneStep3p7",
        save_step,
        STEP_IMAGE,
        far=Far(256, 8, (196, 196), raises="index out of range"),
        n_blocks=30,
        n_more=1,
        options=STEP_OPTIONS,
    ),
)
