"""GLM-4.1V to GLM-5-Next, and GLM-OCR."""

from functools import partial

from tokenprune.serving.vllm.architectures.architecture import Architecture

glm = partial(Architecture, prunes_videos=True, drops_patches=True, joins_ranks=True)
glm4v = partial(glm, home="glm4v", mrope=True, shrinks=True)
RECORDS = (
    glm4v(
        "TokenPruneGlm4v", "glm4v", title="GLM-4.1V and 4.6V-Flash, GLM-4.5V and 4.6V, GLM-OCR",
        published=("zai-org/GLM-4.1V-9B-Thinking", "zai-org/GLM-4.6V-Flash"),
        names=(r"\S+/GLM-4\.(1V|6V-Flash)",), other_names=(r"\S+/glm-4v-9b",),
        tower="towers.qwen:QWEN2_TOWER",
    ),
    glm4v(
        "TokenPruneGlm4vMoe", "glm4v_moe",
        published=("zai-org/GLM-4.5V", "zai-org/GLM-4.6V"), names=(r"\S+/GLM-4\.[56]V",),
        tower="towers.qwen:QWEN2_TOWER",
    ),
    glm4v("TokenPruneGlmOcr", "glm_ocr", published=("zai-org/GLM-OCR",), tower="towers.qwen:NORMED_TOWER"),
    glm(
        "TokenPruneGlm5Next", "glm5_next", "glm5_next", title="GLM-5-Next",
        tower="towers.qwen:NORMED_TOWER", own_layers={"glm5_next_text": ("indexed_attention",)},
        reads_position_ids=False,
    ),
)  # fmt: skip
