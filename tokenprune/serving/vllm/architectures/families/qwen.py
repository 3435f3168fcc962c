"""Qwen2-VL to Qwen4-Exp, and models with Qwen3-VL's tower: Intern-S2, Cosmos 3, Cohere Compass and Ling 3.0 VL."""

from functools import partial

from tokenprune.serving.vllm.architectures.architecture import Architecture

#: A model with M-RoPE, whose tower gets the patches of all images in one sequence.
qwen = partial(Architecture, tower="towers.qwen:QWEN3_TOWER", mrope=True, drops_patches=True)
joined = partial(qwen, joins_ranks=True)
with_videos = partial(joined, prunes_videos=True)
shrinking = partial(with_videos, shrinks=True)
#: Intern-S2, which transformers has no class for.
interns2 = partial(with_videos, home="qwen3_5", like="qwen3_5_moe", text_part="text_config")
RECORDS = (
    shrinking(
        "TokenPruneQwen2VL", "qwen2_vl", "qwen_vl", title="Qwen2-VL, Qwen2.5-VL",
        tower="towers.qwen:QWEN2_TOWER",
    ),
    shrinking(
        "TokenPruneQwen2_5_VL", "qwen2_5_vl", "qwen_vl", published=("Qwen/Qwen2.5-VL-72B-Instruct-AWQ",),
        tower="towers.qwen:QWEN2_5_TOWER",
    ),
    shrinking(
        "TokenPruneQwen3VL", "qwen3_vl", "qwen_vl",
        title="Qwen3-VL and its mixture of experts", published=("Qwen/Qwen3-VL-8B-Instruct",),
    ),
    shrinking(
        "TokenPruneQwen3VLMoe", "qwen3_vl_moe", "qwen_vl",
        published=("Qwen/Qwen3-VL-30B-A3B-Instruct-FP8",), names=(r"\S+/Qwen3-VL-\d+B-A\d+B",),
    ),
    shrinking(
        "TokenPruneQwen3_5", "qwen3_5", "qwen3_5",
        title="Qwen3.5 and 3.6, and their mixtures of experts", published=("Qwen/Qwen3.5-27B", "Qwen/Qwen3.6-27B"),
        names=(r"\S+/Qwen3\.6-(?!\d+B-A\d)\d",), tables=("READ_STRATEGIES",), headed="ClefFlashForJointSchema",
    ),
    shrinking(
        "TokenPruneQwen3_5Moe", "qwen3_5_moe", "qwen3_5",
        published=("Qwen/Qwen3.5-35B-A3B",), names=(r"\S+/Qwen3\.[56]-\d+B-A\d+B",), tables=("READ_STRATEGIES",),
    ),
    with_videos(
        "TokenPruneQwen4Exp", "qwen4_exp", "qwen4_exp", title="Qwen4-Exp",
        own_layers={"qwen4_exp_text": ("indexed_attention", "qwen_sparse_attention")},
        refuses=("--language-model-only",), tables=("_NGRAM_LAYER_FIELDS",),
    ),
    qwen(
        "TokenPruneQwen2_5Omni", "qwen2_5_omni", "qwen_omni", "Qwen2_5OmniModel",
        saved_as="Qwen2_5OmniForConditionalGeneration",
        title="Qwen2.5-Omni, Qwen3-Omni", published=("Qwen/Qwen2.5-Omni-7B",),
        shrinks=True, tower="towers.qwen:QWEN2_5_TOWER", tower_type="qwen2_5_omni_thinker",
    ),
    qwen(
        "TokenPruneQwen3Omni", "qwen3_omni_moe", "qwen_omni", "Qwen3OmniMoeForConditionalGeneration",
        published=("Qwen/Qwen3-Omni-30B-A3B-Instruct",),
        shrinks=True, tower_type="qwen3_omni_moe_thinker", headed="ClefOmniForJointSchema",
    ),
    interns2(
        "TokenPruneInternS2", "intern_s2_preview", replaces="InternS2PreviewForConditionalGeneration",
        title="Intern-S2 Preview, Intern-S2 Mobius",
    ),
    interns2("TokenPruneInternS2Mobius", "interns2_mobius", published=("internlm/Intern-S2-Mobius",)),
    shrinking(
        "TokenPruneCosmos3", "cosmos3_omni", "cosmos", saved_as="Cosmos3OmniForConditionalGeneration", title="Cosmos 3",
    ),
    Architecture(
        "TokenPruneCosmos3Edge", "cosmos3_edge", "cosmos", title="Cosmos 3 Edge",
        tower="families.cosmos3_edge:TOWER", mrope=True, prunes_videos=True, takes_adapters=False,
    ),
    joined("TokenPruneCohereCompass", "cohere_compass", "cohere_compass", title="Cohere Compass"),
    qwen(
        "TokenPruneLing3VL", "bailing_moe_v3_vl", "ling3_vl", "BailingMoeV3VLForConditionalGeneration",
        title="Ling 3.0 VL", published=("inclusionAI/Ling-3.0-flash-VL",), names=(r"\S+/Ling-3\.0-\S*VL",),
        like="qwen3_5", text_part="text_config", takes_adapters=False,
    ),
)  # fmt: skip
