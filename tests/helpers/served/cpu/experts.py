"""Experts and linear layers on a CPU."""

# pyright: reportMissingImports=false

from functools import cache, wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any


@cache
def group_experts() -> None:
    """vLLM supports experts chosen by sigmoids or with a bias only in groups, so all experts are one group here."""
    from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter

    make = CPURouter.__init__

    @wraps(make)
    def grouped(self: Any, *args: Any, **settings: Any) -> None:
        make(self, *args, **settings)
        biased = self.scoring_func == "softmax" and self.e_score_correction_bias is not None
        if (self.scoring_func == "sigmoid" or biased) and not self.use_grouped_topk:
            self.use_grouped_topk, self.num_expert_group, self.topk_group = True, 1, 1

    CPURouter.__init__ = grouped


@cache
def multiply_all() -> None:
    """vLLM's kernel for linear layers takes contiguous inputs only, and HunyuanOCR's tower gives it others."""
    module: Any = import_module("vllm._cpu_ops" if find_spec("vllm._cpu_ops") else "vllm._custom_ops")  # up to 0.33
    original = module.onednn_mm
    module.onednn_mm = lambda handler, x, bias: original(handler, x.contiguous(), bias)
