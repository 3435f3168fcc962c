"""Nemotron Nano VL and Nemotron Omni, which vLLM runs with one class."""

from functools import partial

from tokenprune.serving.vllm.architectures.architecture import Architecture

nemotron = partial(
    Architecture,
    home="nemotron:PrunedNemotron",
    tower="families.nemotron:TOWER",
    own_layers={"nemotron_h": ("attention", "mamba", "moe")},
    reads_position_ids=False,
    needs_pixels=True,
    leaves_videos=True,
)
published = partial(nemotron, like="nemotron_h_omni", text_part="llm_config")
RECORDS = (
    published(
        "TokenPruneNemotronNanoVL", "NemotronH_Nano_VL_V2", replaces="NemotronH_Nano_VL_V2",
        title="Nemotron Nano VL, in version 2", published=("nvidia/NVIDIA-Nemotron-Nano-12B-v2-VL-BF16",),
        names=(r"\S+/NVIDIA-Nemotron-Nano-12B-v2-VL",),
    ),
    published(
        "TokenPruneNemotronNanoOmni", "NemotronH_Nano_Omni_Reasoning_V3", replaces="NemotronH_Nano_Omni_Reasoning_V3",
        title="Nemotron Omni: Nano, Super, and type `nemotron_h_omni`",
        published=("nvidia/Nemotron-3-Nano-Omni-30B-A3B-Reasoning-BF16",), names=(r"\S+/Nemotron-3-Nano-Omni",),
    ),
    published(
        "TokenPruneNemotronSuperOmni", "NemotronH_Super_Omni_Reasoning_V3",
        replaces="NemotronH_Super_Omni_Reasoning_V3",
    ),
    nemotron("TokenPruneNemotronOmni", "nemotron_h_omni", replaces="NemotronH_Omni_Reasoning_V3"),
)  # fmt: skip
