"""LFM2-VL and LFM3-VL."""

from tokenprune.serving.vllm.architectures.architecture import Architecture

RECORDS = (
    Architecture(
        "TokenPruneLfm2VL", "lfm2_vl", "lfm2_vl", "Lfm2VlForConditionalGeneration",
        title="LFM2-VL", published=("LiquidAI/LFM2.5-VL-1.6B",), names=(r"\S+/LFM2\.5-VL",),
        tower="families.lfm2_vl:TOWER", needs_pixels=True, padded=True, tables=("READ_STRATEGIES",),
    ),
    # Not in the transformers releases that vLLM 0.34 takes.
    Architecture(
        "TokenPruneLfm3VL", "lfm3_vl", "lfm3_vl", "Lfm3VlForConditionalGeneration",
        title="LFM3-VL", published=("LiquidAI/LFM3-VL-2B",),
        text_part="text_config", tower="families.lfm3_vl:TOWER", prunes_videos=True, first_release="0.34",
        takes_adapters=False,
    ),
)  # fmt: skip
