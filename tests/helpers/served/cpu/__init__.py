"""Changes with which vLLM runs tiny models on a CPU in float32: of its own processors and models, which have published
sizes in their code, and replacements for kernels that it has only on GPUs or only in bfloat16."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Callable

from helpers.served.cpu import small
from helpers.served.cpu.attention import attend_within_images
from helpers.served.cpu.deepseek import shrink_deepseek_ocr
from helpers.served.cpu.experts import group_experts, multiply_all
from helpers.served.cpu.glm5 import serve_plainly
from helpers.served.cpu.linear_attention import use_float32_kernel
from helpers.served.cpu.minimax import run_minimax_m3_on_cpus
from helpers.served.cpu.nemotron import run_nemotron_on_cpus
from helpers.served.cpu.qwen4 import run_qwen4_exp_on_cpus
from helpers.served.cpu.stand_ins import run_kimi_k3_on_cpus, run_ling3_on_cpus
from helpers.served.cpu.step import run_step_on_cpus

#: What an architecture's engines need, by the beginning of its name.
CHANGES: dict[str, Callable[[], None]] = {
    "Aria": small.mask_padding_of_aria,
    "DeepseekOCR": shrink_deepseek_ocr,
    "Glm5Next": serve_plainly,
    "Isaac": small.serve_small_isaac,
    "KimiK3": run_kimi_k3_on_cpus,
    "Ling3VL": run_ling3_on_cpus,
    "MiniMaxM3": run_minimax_m3_on_cpus,
    "MuseGlimmer": small.resize_as_transformers,
    "Nemotron": run_nemotron_on_cpus,
    "OpenCUA": small.make_opencua_whole,
    "Ovis2_5": small.serve_small_ovis2_5,
    "Qwen4Exp": run_qwen4_exp_on_cpus,
    "Step": run_step_on_cpus,
    "UnlimitedOCR": shrink_deepseek_ocr,
}


def prepare(architecture: str) -> None:
    """Change vLLM in this process for engines of an architecture. Call it after our plug-in has registered its own."""
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda function: function()  # a process per model, which only saves memory on GPUs
    for change in (use_float32_kernel, attend_within_images, group_experts, multiply_all):
        change()
    for beginning, change in CHANGES.items():
        if architecture.removeprefix("TokenPrune").startswith(beginning):
            change()
