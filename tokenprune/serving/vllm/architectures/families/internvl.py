"""InternVL in two formats, Intern-S1, and Qianfan-OCR."""

from tokenprune.serving.vllm.architectures.architecture import Architecture

RECORDS = (
    Architecture(
        "TokenPruneInternVL", "internvl", "internvl",
        title="InternVL in transformers' format, such as `InternVL3_5-8B-HF`",
        published=("OpenGVLab/InternVL3_5-8B-HF", "OpenGVLab/InternVL3-8B-hf"),
    ),
    Architecture(
        "TokenPruneInternVLChat", "internvl_chat", "internvl", "InternVLChatModel",
        title="InternVL in its authors' format, such as `InternVL3_5-8B`",
        published=("OpenGVLab/InternVL3_5-8B", "OpenGVLab/InternVL-Chat-V1-5", "OpenGVLab/Mini-InternVL-Chat-4B-V1-5"),
        names=(r"\S+/(Mini-)?InternVL(\d|-Chat)(?!\S*-HF)",),
        converted="internvl", text_part="llm_config", tower="internvl_vision",
    ),
    Architecture(
        "TokenPruneInternS1", "interns1", "internvl:PrunedInternVL",
        title="Intern-S1", published=("internlm/Intern-S1-mini",), other_names=(r"\S+/Intern-S1-Pro",),
        like="internvl", text_part="text_config", tower="internvl_vision",
    ),
    Architecture("TokenPruneQianfanOCR", "qianfan_ocr", "internvl", title="Qianfan-OCR", tower="qianfan_ocr_vision"),
)  # fmt: skip
