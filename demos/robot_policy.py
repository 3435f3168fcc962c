"""Prune a robot policy: visual tokens, layers of both stacks, and the action expert's outputs in every second step.

python demos/robot_policy.py    # a tiny PI0, made here; its weights are random, so its actions are noise
"""

from dataclasses import replace
from typing import Any

import torch
from transformers import PI0Config, PI0ForConditionalGeneration

import tokenprune
from tokenprune.evals.arguments.parser import script_parser
from tokenprune.evals.cli.errors import plain_errors

IMAGE = 99


def random_policy():
    """Return a policy with eight layers and random weights. With yours, call from_pretrained instead."""
    torch.manual_seed(0)
    text = {"num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    vlm = {"model_type": "gemma", "hidden_size": 32, "intermediate_size": 48, "vocab_size": 100, **text}
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    tower |= {"model_type": "siglip_vision_model", "image_size": 64, "patch_size": 4, "vision_use_head": False}
    whole = {"model_type": "paligemma", "text_config": vlm, "vision_config": tower, "image_token_id": IMAGE}
    expert = {"model_type": "gemma", "hidden_size": 16, "intermediate_size": 24, **text}
    config = PI0Config(vlm_config={**whole, "projection_dim": 32}, dit_config=expert, chunk_size=10)
    return PI0ForConditionalGeneration(config).eval()


def random_observation():
    """Return two cameras of 16 x 16 visual tokens, an instruction and a state, as a processor does."""
    ids = torch.tensor([[*[IMAGE] * 512, 2, 3, 4, 5]])
    cameras = {"pixel_values": torch.rand(1, 2, 3, 64, 64), "pixel_attention_mask": torch.ones(1, 2, dtype=torch.bool)}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **cameras, "state": torch.rand(1, 32)}


def main(arguments=None):
    script_parser(__doc__).parse_args(arguments)
    policy: Any = random_policy()
    observation = {**random_observation(), "noise": torch.randn(1, 10, 32)}
    print("The weights are random: how far actions move says nothing about a trained policy. The counts are exact.")
    unpruned = policy.sample_actions(**observation)
    tokens = tokenprune.EfficientVLA(keep_ratio=0.25, reuse=1)  # the visual tokens alone, then with the other two parts
    for strategy in tokens, replace(tokens, skip=(3, 4)), replace(tokens, skip=(3, 4), reuse=2):
        with tokenprune.patch(policy, strategy) as handle:
            actions = policy.sample_actions(**observation)
        print(f"\n{strategy}\n{handle.report}")
        print(f"  actions differ from the unpruned policy's by {(actions - unpruned).abs().mean():.3g} on average")


if __name__ == "__main__":
    with plain_errors():
        main()
