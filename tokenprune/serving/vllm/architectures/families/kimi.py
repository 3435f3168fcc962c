"""Kimi K2.5 to K3.1, and Kimi-VL."""

from functools import partial

from tokenprune.serving.vllm.architectures.architecture import Architecture

kimi = partial(Architecture, tower="families.kimi:TOWER", drops_patches=True, joins_ranks=True, takes_adapters=False)
#: Their features vLLM does not take, and transformers has no class for them.
only_vllm = partial(kimi, like="kimi_k25", text_part="text_config", needs_pixels=True)
k3 = partial(
    only_vllm,
    home="kimi_k3:PrunedKimiK3",
    splits_images=True,
    refuses=("--use-replayssm with --speculative-config",),
    tokenizer_mode="kimi_k3",
)
RECORDS = (
    kimi(
        "TokenPruneKimiK25", "kimi_k25", "kimi", saved_as="Kimi_K25ForConditionalGeneration",
        title="Kimi K2.5, also K2.6 and K2.7 Code", published=("moonshotai/Kimi-K2.5", "nvidia/Kimi-K2.6-NVFP4"),
        names=(r"\S+/Kimi-K2\.[5-7]",), vision_chunks=True, prunes_videos=True, splits_images=True,
    ),
    k3("TokenPruneKimiK3", "kimi_k3", title="Kimi K3", published=("moonshotai/Kimi-K3",)),
    k3(
        "TokenPruneKimiK31", "kimi_k31", title="Kimi K3.1", published=("moonshotai/Kimi-K3.1",), first_release="0.34",
    ),
    only_vllm(
        "TokenPruneKimiVL", "kimi_vl", "kimi_vl", title="Kimi-VL", published=("moonshotai/Kimi-VL-A3B-Thinking-2506",),
    ),
)  # fmt: skip
