"""Prune the visual tokens that a block diffusion model reads: before its encoder, and in late denoising steps.

python demos/block_diffusion.py    # a tiny DiffusionGemma, made here; its weights are random, so its answers are noise
"""

from typing import Any

import torch
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

import tokenprune
from tokenprune.evals.arguments.parser import script_parser
from tokenprune.evals.cli.errors import plain_errors

IMAGE = 99


def random_model():
    """Return a model with two layers and random weights. With yours, call from_pretrained instead."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    heads = {"num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 8}
    experts = {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24, "vocab_size": 100}
    text = {**sizes, **heads, **experts, "layer_types": ["sliding_attention", "full_attention"]}
    vision = {**sizes, "model_type": "gemma4_vision", "head_dim": 8, "num_key_value_heads": 4, "patch_size": 4}
    config = DiffusionGemmaConfig(text_config=text, vision_config=vision, image_token_id=IMAGE, canvas_length=16)
    return DiffusionGemmaForBlockDiffusion(config).eval()


def random_prompt():
    """Return what a processor would: 16 x 16 visual tokens, each of 3 x 3 patches, between five text tokens."""
    ids = torch.tensor([[2, 3, 4, *[IMAGE] * 256, 5, 6]])
    places = torch.cartesian_prod(torch.arange(48), torch.arange(48)).flip(1)[None]
    images = {"pixel_values": torch.rand(1, 48 * 48, 48), "image_position_ids": places}
    return {"input_ids": ids, **images, "mm_token_type_ids": (ids == IMAGE).int()}


def main(arguments=None):
    script_parser(__doc__).parse_args(arguments)
    model: Any = random_model()
    inputs = random_prompt()
    print("The weights are random: which tokens are kept means nothing, but the counts are those of a trained model.")
    before = tokenprune.FoPru(keep_ratio=0.25)  # a quarter enters the encoder
    late = tokenprune.LateStep(keep_ratio=0.1, steps=(4, 8))  # all enter; a third is read from step 4, a tenth from 8
    for strategy in before, late:
        with tokenprune.patch(model, strategy) as handle:
            model.generate(**inputs, max_new_tokens=16, max_denoising_steps=12)
        print(f"\n{strategy}\n{handle.report}")


if __name__ == "__main__":
    with plain_errors():
        main()
