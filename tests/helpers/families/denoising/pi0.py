"""PI0: PaliGemma reads one to three cameras and an instruction, and an expert of as many layers denoises actions."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GemmaConfig, PaliGemmaConfig, PI0Config, SiglipVisionConfig

from helpers.families.base import IMAGE, ImageInputs, decoder, tower
from helpers.families.gemma import SIDE, PaliGemma

from .base import Closed, Denoised, DenoisingFamily

ACTIONS, WIDTH, STEPS, CAMERAS = 5, 7, 4, 2


class PI0(PaliGemma, DenoisingFamily):
    """Four steps towards five actions."""

    class_name = "PI0ForConditionalGeneration"
    modes = ("denoised", "loop")

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        self.n_layers = n_layers or 2
        return DenoisingFamily.build(self, attention, seed)

    def set_answers(self, settings: Any, config: Any) -> None:
        """Do nothing: it answers with actions."""

    def config(self) -> Any:
        return PI0Config(
            **self.stacks(), chunk_size=ACTIONS, max_state_dim=WIDTH, max_action_dim=WIDTH, num_inference_steps=STEPS
        )

    def stacks(self) -> dict[str, Any]:
        """Return the configurations of both stacks."""
        text = GemmaConfig(**decoder(head_dim=8, num_hidden_layers=self.n_layers))
        expert = decoder(head_dim=8, num_hidden_layers=self.n_layers, hidden_size=16, intermediate_size=24)
        vlm = PaliGemmaConfig(
            vision_config=SiglipVisionConfig(**tower(SIDE), vision_use_head=False),
            text_config=text,
            image_token_index=IMAGE,
            projection_dim=32,
            hidden_size=32,
            vocab_size=96,
        )
        return {"vlm_config": vlm, "dit_config": GemmaConfig(**expert)}

    def blocks(self, sizes: list[Any]) -> list[list[int]]:
        """Return the IDs: all cameras come first, with nothing between them."""
        return [[IMAGE] * 36 for _ in sizes]

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {}

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        """Join images so that all rows have the same number of cameras; missing ones are empty places."""
        seen = torch.arange(max(per_row)) >= max(per_row) - torch.tensor(per_row)[:, None]  # also at the end
        pixels = torch.zeros(*seen.shape, 3, SIDE, SIDE)
        pixels[seen] = torch.cat([image["pixel_values"] for image in images])
        generator = torch.Generator().manual_seed(11)
        return {
            "pixel_values": pixels,
            "pixel_attention_mask": seen,
            "state": torch.randn(len(per_row), WIDTH, generator=generator),
            "noise": torch.randn(len(per_row), ACTIONS, WIDTH, generator=generator),
        }

    def position_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        return inputs["attention_mask"].cumsum(1) - 1

    def denoise(self, model: Any, inputs: dict[str, Any], mode: str) -> Denoised:
        with torch.no_grad():
            if mode == "denoised":
                return Denoised([], model.sample_actions(**inputs))
            return Denoised([{}], self.by_hand(model, inputs))

    def by_hand(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return the velocity from one call that embeds, encodes and denoises."""
        return model(**inputs, timestep=torch.full((len(inputs["noise"]),), 0.5)).logits

    def expected(self, model: Any, inputs: dict[str, Any], done: Denoised, closed: Closed) -> Tensor:
        with masked(model, closed), torch.no_grad():
            return self.by_hand(model, inputs) if done.steps else model.sample_actions(**inputs)


@contextmanager
def masked(model: Any, closed: Closed) -> Iterator[None]:
    """Within the block, no layer of either stack attends to what is closed."""
    vlm, expert = model.model.vlm.language_model, model.model.dit
    configs = vlm.config, expert.config
    before = [config._attn_implementation for config in configs]

    def close(layer: int, module: nn.Module, args: Any, kwargs: Any) -> Any:
        mask: Tensor = kwargs["attention_mask"]
        dropped = closed.at(layer, 0)
        n_prefix = dropped.shape[1]
        hidden = torch.nn.functional.pad(dropped, (0, mask.shape[-1] - n_prefix))[:, None, None]
        mask = mask.masked_fill(hidden, torch.finfo(mask.dtype).min)
        if mask.shape[-2] == n_prefix:  # a dropped row of the prefix, where softmax needs one entry
            mask = mask.masked_fill(torch.eye(n_prefix).bool() & hidden, 0.0)
        return args, {**kwargs, "attention_mask": mask}

    def renumber(prefix: bool, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if closed.position_ids is None or closed.ahead is None:
            return args, kwargs
        ids = closed.position_ids if prefix else kwargs["position_ids"] - closed.ahead[:, None]
        return args, {**kwargs, "position_ids": ids}

    hooks = [
        layer.register_forward_pre_hook(partial(close, number), with_kwargs=True)
        for stack in (vlm, expert)
        for number, layer in enumerate(stack.layers)
    ]
    hooks += [
        stack.register_forward_pre_hook(partial(renumber, stack is vlm), with_kwargs=True) for stack in (vlm, expert)
    ]
    for config in configs:
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for config, was in zip(configs, before, strict=True):
            config._attn_implementation = was
