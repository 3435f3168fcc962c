"""A tiny Intern-S2 Preview, for which transformers has no class, and the same model as a Qwen3.5 with experts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from helpers.served.models import save_qwen
from helpers.served.native.packed import rewrite
from helpers.served.reference import CONVERTED

#: Code in checkpoints.
CONFIGURATION = """from transformers import Qwen3_5MoeConfig


class InternS2PreviewConfig(Qwen3_5MoeConfig):
    model_type = "intern_s2_preview"
"""


def save_interns2(folder: Path, **settings: Any) -> None:
    """Intern-S2 Preview with up to 49 visual tokens."""
    save_qwen(folder, kind="qwen3_5_moe", **settings)
    shutil.copytree(folder, folder / CONVERTED)
    names = {"architectures": ["InternS2PreviewForConditionalGeneration"], "model_type": "intern_s2_preview"}
    code = {"auto_map": {"AutoConfig": "configuration_interns2.InternS2PreviewConfig"}}
    rewrite(folder / "config.json", lambda written: {**written, **names, **code})
    (folder / "configuration_interns2.py").write_text(CONFIGURATION)
    # transformers has a class only for Qwen3.5's tokenizer, which splits the times of frames differently.
    AutoTokenizer.from_pretrained(folder / CONVERTED).save_pretrained(folder)
