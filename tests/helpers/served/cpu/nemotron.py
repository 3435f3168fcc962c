"""Changes with which vLLM builds a tiny Nemotron, and runs it on a CPU in float32."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor

#: The tower: its name and sizes.
TOWER, WIDTH, N_LAYERS, N_HEADS, MLP_WIDTH = "vit_tiny", 64, 3, 2, 96


@cache
def run_nemotron_on_cpus() -> None:
    """Make vLLM build the tiny tower, keep its output in float32 instead of rounding it to bfloat16, and run experts
    without a gate, for which it has no CPU kernel."""
    from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    from vllm.model_executor.models import nano_nemotron_vl
    from vllm.transformers_utils.configs.radio import VIT_TIMM_DIM_BY_NAME

    from tokenprune.serving.vllm.towers.radio import SIZES

    class InFloat32:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, "float32" if name == "bfloat16" else name)

    VIT_TIMM_DIM_BY_NAME[TOWER] = (WIDTH, N_LAYERS, N_HEADS, MLP_WIDTH)
    SIZES[TOWER] = (N_LAYERS, N_HEADS)
    nano_nemotron_vl.torch = InFloat32()
    kind: Any = CPUUnquantizedExperts
    supports, prepare, apply = kind._supports_activation, kind.process_weights_after_loading, kind.apply
    check = FusedMoEConfig.__post_init__

    def check_others(self: Any) -> None:
        with suppress(NotImplementedError):  # raised last
            check(self)

    def prepare_gated(self: Any, layer: Any) -> None:
        if self.moe_config.is_act_and_mul:
            prepare(self, layer)

    def apply_any(self: Any, *, output: Tensor, **given: Any) -> None:
        if self.moe_config.is_act_and_mul:
            apply(self, output=output, **given)
        else:
            output.copy_(mixed(*(given[one] for one in ("hidden_states", "w1", "w2", "topk_weights", "topk_ids"))))

    FusedMoEConfig.__post_init__ = check_others
    kind._supports_no_act_and_mul = staticmethod(lambda: True)
    kind._supports_activation = staticmethod(lambda one: supports(one) or one.value == "relu2_no_mul")
    kind.process_weights_after_loading, kind.apply = prepare_gated, apply_any


def mixed(states: Tensor, up: Tensor, down: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """Return the output (tokens, width) of experts without a gate, with each token in its `chosen` experts."""
    inner = torch.einsum("tw,emw->tem", states, up).relu().square()
    made = torch.einsum("tem,ewm->tew", inner, down)
    return (made[torch.arange(len(states))[:, None], chosen.long()] * weights[..., None]).sum(1)
