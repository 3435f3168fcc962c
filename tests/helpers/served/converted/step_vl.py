"""A tiny Step3-VL, for which transformers has no class: a Step 3.7 with a Qwen3, whose weights have the same names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from transformers.modeling_outputs import MoeModelOutputWithPast

from helpers.served.models import decoder, save
from helpers.served.native.step import STEP_IMAGE, step_processor, step_tower

#: Code in published checkpoints, because transformers does not know the type.
CONFIGURATION = """from transformers import PreTrainedConfig, Qwen3Config


class StepRoboticsVisionEncoderConfig(PreTrainedConfig):
    pass


class StepRoboticsConfig(PreTrainedConfig):
    model_type = "step_robotics"

    def __init__(self, vision_config=None, text_config=None, **settings):
        self.vision_config = StepRoboticsVisionEncoderConfig(**(vision_config or {}))
        self.text_config = Qwen3Config(**(text_config or {}))
        super().__init__(**settings)
"""


class Qwen3(transformers.Qwen3Model):
    """A Qwen3 that says, like Step 3.7's language model, that no experts were chosen."""

    def forward(self, *args: Any, **settings: Any) -> Any:
        return MoeModelOutputWithPast(**super().forward(*args, **settings))


def save_step_vl(folder: Path, **settings: Any) -> None:
    """Step3-VL with the tower and the images of Step 3.7."""
    processor = step_processor()
    words = processor.tokenizer
    written = {
        "architectures": ["StepVLForConditionalGeneration"],
        "model_type": "step_robotics",
        "auto_map": {"AutoConfig": "configuration_step_vl.StepRoboticsConfig"},
        "vision_config": step_tower(),
        "text_config": decoder(len(words), tie_word_embeddings=False, **settings),
        "projector_bias": False,
        "image_token_id": words.convert_tokens_to_ids(STEP_IMAGE),
        "torch_dtype": "float32",
    }
    save(with_qwen3(written, transformers.Step3p7ForConditionalGeneration), processor, folder)
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "configuration_step_vl.py").write_text(CONFIGURATION)


def load_step_vl(folder: Path) -> tuple[Any, Any]:
    """Return a checkpoint's model and processor."""

    def load(config: Any) -> Any:
        kind = transformers.Step3p7ForConditionalGeneration
        return kind.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="sdpa")

    model = with_qwen3(json.loads((folder / "config.json").read_text()), load)
    return model.eval(), transformers.Step3p7Processor.from_pretrained(folder)


def with_qwen3(published: dict[str, Any], make: Any) -> Any:
    """Return what `make` builds from a config, with Qwen3 where Step 3.7 has its own language model."""
    config = transformers.Step3p7Config(
        vision_config=dict(published["vision_config"]),
        text_config=transformers.Qwen3Config(**published["text_config"]),
        projector_bias=published["projector_bias"],
        image_token_id=published["image_token_id"],
    )
    with patch("transformers.models.step3p7.modeling_step3p7.Step3p7TextModel", Qwen3):
        return make(config)
