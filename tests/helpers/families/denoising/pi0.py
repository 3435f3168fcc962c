"""PI0 and PI0.5: PaliGemma reads one to three cameras and an instruction, and an expert of as many layers denoises
actions."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from helpers.families.base import IMAGE, ImageInputs
from helpers.families.gemma import SIDE, PaliGemma

from .base import Closed, Denoised, DenoisingFamily

ACTIONS, WIDTH, STEPS, CAMERAS = 5, 7, 4, 2


class PI0(PaliGemma, DenoisingFamily):
    """Four steps towards five actions."""

    modes = ("denoised", "loop")
    n_layers = 2

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        self.n_layers = n_layers or 2
        return DenoisingFamily.build(self, attention, seed)

    def set_answers(self, settings: Any, config: Any) -> None:
        """Do nothing: it answers with actions."""

    def config(self) -> Any:
        """Return the configuration, whose stacks have the same number of layers."""
        config = super().config()
        config.vlm_config.text_config.num_hidden_layers = config.dit_config.num_hidden_layers = self.n_layers
        return config

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
        generator = torch.Generator(torch.get_default_device()).manual_seed(11)
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


class PI05(PI0):
    """PI0 without a state, whose expert's norms and gates depend on the step. The gates are far from 0, at which the
    expert's layers would do nothing."""

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        model = super().build(attention, seed, n_layers)
        with torch.no_grad():
            for name, parameter in model.model.dit.named_parameters():
                if name.endswith("norm.dense.weight"):
                    parameter.normal_()
                elif name.endswith("norm.dense.bias"):
                    parameter.chunk(3)[-1].fill_(1.0)  # of scale, shift and gate
        return model

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        """Join images as for PI0, whose state is told in the prompt."""
        joined = super().join(images, per_row)
        del joined["state"]
        return joined


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
