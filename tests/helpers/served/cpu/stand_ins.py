"""Kimi K3 and Ling 3.0 VL in vLLM with other language models than theirs, which run only on GPUs."""

# pyright: reportMissingImports=false

from functools import cache
from typing import Any
from unittest.mock import patch

KIMI_K3 = ("TokenPruneKimiK3", "TokenPruneKimiK31")
LING3 = "TokenPruneLing3VL"


def run_kimi_k3_on_cpus() -> None:
    """Make vLLM build Kimi K3 and K3.1 with the language model of Kimi K2.5, which has no state."""
    from vllm import ModelRegistry

    for name in KIMI_K3:
        ModelRegistry.register_model(name, kimi_k3())


def state_of_requests(model: Any) -> Any:
    """Return what model runner V2 keeps of the requests of a model without states of its own."""
    from vllm.v1.worker.gpu.model_states.default import DefaultModelState

    return DefaultModelState


@cache
def kimi_k3() -> Any:
    from vllm.models.kimi_k3.nvidia import model

    from tokenprune.serving.vllm.models.kimi_k3 import PrunedKimiK3

    make = model.init_vllm_registered_model

    def make_another(**arguments: Any) -> Any:
        found = make(**{**arguments, "architectures": ["DeepseekV2ForCausalLM"]})
        found.process_weights_after_loading = lambda: None
        return found

    model.init_vllm_registered_model = make_another
    without_states = {"is_hybrid": False, "has_inner_state": False}
    return type("StandIn", (PrunedKimiK3,), {**without_states, "get_model_state_cls": state_of_requests})


def run_ling3_on_cpus() -> None:
    """Make vLLM build Ling 3.0 VL with the language model of Qwen3-VL, which has no state."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(LING3, ling3())


@cache
def ling3() -> Any:
    from vllm.model_executor.models import bailing_moe_v3_vl
    from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

    from tokenprune.serving.vllm.models.ling3_vl import PrunedLing3VL

    class StandIn(PrunedLing3VL):
        is_hybrid = has_inner_state = False

        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            with patch.object(bailing_moe_v3_vl, "BailingMoeV3ForCausalLM", Qwen3ForCausalLM):
                super().__init__(vllm_config=vllm_config, prefix=prefix)

    return StandIn
