"""A tiny Intern-S2 Mobius, for which transformers has no class, and the same model as a Qwen3.5 with experts, of whose
layers some have the same."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from helpers.served.models import save_qwen
from helpers.served.native.packed import rewrite
from helpers.served.reference import CONVERTED

#: How many sets of experts the layers share: the first and the last of three layers have the same.
N_BLOCKS = 2
#: Code in checkpoints.
CONFIGURATION = """from transformers import Qwen3_5MoeConfig, Qwen3_5MoeTextConfig, Qwen3_5MoeVisionConfig


class InternS2MobiusTextConfig(Qwen3_5MoeTextConfig):
    model_type = "interns2_mobius_text"


class InternS2MobiusConfig(Qwen3_5MoeConfig):
    model_type = "interns2_mobius"
    sub_configs = {"vision_config": Qwen3_5MoeVisionConfig, "text_config": InternS2MobiusTextConfig}
"""
#: The experts of a layer, and what chooses among them.
EXPERTS = re.compile(r"layers\.(\d+)\.mlp\.(experts|gate)\b")


def save_interns2_mobius(folder: Path, **settings: Any) -> None:
    """Intern-S2 Mobius with up to 49 visual tokens."""
    save_qwen(folder, kind="qwen3_5_moe", **settings)
    shutil.copytree(folder, folder / CONVERTED)
    weights = load_file(folder / "model.safetensors")
    shared = {name: weights[in_block("layers.{}.mlp.{}", name)].clone() for name in weights}
    save_file(shared, folder / CONVERTED / "model.safetensors", {"format": "pt"})
    published = {in_block("meta_mlp.{}.{}", name): weight for name, weight in shared.items()}
    save_file(published, folder / "model.safetensors", {"format": "pt"})
    names = {"architectures": ["InternS2MobiusForConditionalGeneration"], "model_type": "interns2_mobius"}
    code = {"auto_map": {"AutoConfig": "configuration_mobius.InternS2MobiusConfig"}}
    text = {"model_type": "interns2_mobius_text", "num_blocks": N_BLOCKS}

    def publish(written: dict[str, Any]) -> dict[str, Any]:
        return {**written, **names, **code, "text_config": {**written["text_config"], **text}}

    rewrite(folder / "config.json", publish)
    (folder / "configuration_mobius.py").write_text(CONFIGURATION)
    # transformers has a class only for Qwen3.5's tokenizer, which splits the times of frames differently.
    AutoTokenizer.from_pretrained(folder / CONVERTED).save_pretrained(folder)


def in_block(pattern: str, name: str) -> str:
    """Return a weight's name in which `pattern`, given a block and a part, replaces the layer that has its experts."""
    return EXPERTS.sub(lambda found: pattern.format(int(found[1]) % N_BLOCKS, found[2]), name)
