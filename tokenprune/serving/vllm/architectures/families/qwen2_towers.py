"""Models with the vision tower of Qwen2-VL or Qwen2.5-VL, before language models of their own."""

from functools import partial

from tokenprune.serving.vllm.architectures.architecture import Architecture

qwen2 = partial(Architecture, tower="towers.qwen:QWEN2_TOWER")
qwen2_5 = partial(Architecture, tower="towers.qwen:QWEN2_5_TOWER", drops_patches=True)
RECORDS = (
    qwen2(
        "TokenPruneDotsOCR", "dots_ocr", "dots_ocr", "DotsOCRForCausalLM",
        title="dots.ocr", published=("rednote-hilab/dots.ocr",),
        like="exaone4_5", text_part="", drops_patches=True,
    ),
    qwen2(
        "TokenPruneErnie4_5VL", "ernie4_5_moe_vl", "ernie4_5_vl", "Ernie4_5_VLMoeForConditionalGeneration",
        title="ERNIE 4.5 VL, in its authors' format", published=("baidu/ERNIE-4.5-VL-28B-A3B-PT",),
        names=(r"\S+/ERNIE-4\.5-VL",),
        converted="ernie4_5_vl_moe", text_part="", mrope=True,
    ),
    qwen2_5(
        "TokenPruneExaone4_5", "exaone4_5", "exaone4_5", "Exaone4_5_ForConditionalGeneration",
        title="EXAONE 4.5", prunes_videos=True, joins_ranks=True,
    ),
    qwen2_5(
        "TokenPruneHyperClovaX", "vlm", "hyperclovax", "HCXVisionV2ForCausalLM", must_be_named=True,
        title="HyperCLOVA X, such as `HyperCLOVAX-SEED-Think-32B`",
        published=("naver-hyperclovax/HyperCLOVAX-SEED-Think-32B",), names=(r"\S+/HyperCLOVAX-SEED-Think-32B",),
        converted="hyperclovax_vision_v2", text_part="text_config", prunes_videos=True, needs_pixels=True,
        takes_adapters=False,
    ),
    qwen2_5("TokenPruneOpenCUA", "opencua", "opencua", title="OpenCUA", like="qwen2_5_vl", text_part="text_config"),
)  # fmt: skip
