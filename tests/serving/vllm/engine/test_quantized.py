"""Checkpoints with a quantised language model, as published: the vision tower keeps its precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.served.engine import difference, engine, expected, needs_vllm, served
from helpers.served.families import FAMILIES
from helpers.served.family import FOPRU, Family
from helpers.served.reference import Request
from safetensors.torch import load_file, save_file
from torch import Tensor

pytestmark = [needs_vllm, pytest.mark.slow]
NAMES = ("llava-clip", "qwen2_5_vl", "qwen3_vl")
#: Tolerance for log probabilities: vLLM also quantises what is multiplied by the weights.
ROUNDING = 0.3
INT8: dict[str, Any] = {"num_bits": 8, "type": "int", "symmetric": True}


def quantize(folder: Path, quantized: Path, rounded: Path) -> None:
    """Write the model with weights of 8 bits (compressed-tensors' format), and with the same weights as floats."""
    weights, packed = load_file(folder / "model.safetensors"), {}
    for name, weight in weights.items():
        packed[name] = weight
        if is_quantized(name, weight):
            scale = weight.abs().amax(1, keepdim=True) / 127
            packed[name] = (weight / scale).round().char()
            packed[f"{name}_scale"] = scale
            weights[name] = packed[name] * scale
    for target, content in ((quantized, packed), (rounded, weights)):
        shutil.copytree(folder, target)
        save_file(content, target / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    group = {
        "targets": ["Linear"],
        "weights": {**INT8, "strategy": "channel", "dynamic": False},
        "input_activations": {**INT8, "strategy": "token", "dynamic": True},
    }
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head", "re:.*lm_head", "re:.*visi.*", "re:.*visual.*", "re:.*projector.*"],
    }
    (quantized / "config.json").write_text(json.dumps(config))


def is_quantized(name: str, weight: Tensor) -> bool:
    return weight.ndim == 2 and name.endswith("_proj.weight") and "visi" not in name and "visual" not in name


@pytest.mark.parametrize("family", [one for one in FAMILIES if one.name in NAMES], ids=lambda one: one.name)
def test_int8(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to rounding, the answers are those of the same weights in float32, pruned or not. With other kept tokens they
    would differ far more."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)  # vLLM's AMX kernel takes no float32
    folder, quantized, rounded = tmp_path / "float", tmp_path / "quantized", tmp_path / "rounded"
    family.save(folder)
    quantize(folder, quantized, rounded)
    prompt = f"w1 w2 {family.image} w3"
    pruned = [Request(prompt, ((seed, 140, 112),)) for seed in (1, 2)]
    whole = [Request(prompt, ((seed, 140, 112),), keep_ratio=1.0) for seed in (1, 2)]
    with engine(quantized, family.architecture, FOPRU, max_num_seqs=8, max_model_len=256) as llm:
        outputs = served(llm, [*pruned, *whole])
    for output, answer in zip(outputs, expected(rounded, FOPRU, [*pruned, *whole]), strict=True):
        assert difference(output, answer) < ROUNDING
    for output, other in zip(outputs, expected(rounded, {**FOPRU, "strategy": "grid"}, pruned), strict=False):
        assert difference(output, other) > 4 * ROUNDING
