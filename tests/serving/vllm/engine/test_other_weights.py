"""Requests with LoRA adapters of the language model, together with other adapters and requests without one, and
checkpoints with a quantised language model, as published: the vision tower keeps its precision."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.served.engine import check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.families import FAMILIES
from helpers.served.family import FOPRU, Family
from helpers.served.reference import Request
from helpers.served.stored import save
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

pytestmark = [needs_vllm, pytest.mark.slow]
NAMES = ("llava-clip", "qwen2_5_vl", "qwen3_vl", "mistral3", "gemma3")
RANK = 4
#: PEFT's prefix for the names of a model's modules.
PREFIX = "base_model.model."


def write_adapter(adapter: Path, weights: dict[str, Tensor]) -> None:
    """Write an adapter in PEFT's format, in which the name before `lora_` is the adapted module."""
    targets = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in weights})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": targets, "bias": "none"}
    adapter.mkdir()
    save_file(weights, adapter / "adapter_model.safetensors", {"format": "pt"})
    (adapter / "adapter_config.json").write_text(json.dumps(config))


def adapted(folder: Path, adapter: Path, merged: Path, seed: int) -> None:
    """Write a random adapter of all linear layers of the language model, and the model into which it is merged."""
    model: Any = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, module in model.model.language_model.named_modules(prefix="model.language_model"):
            if not isinstance(module, nn.Linear):
                continue
            down = torch.randn(RANK, module.in_features, generator=generator) * 0.1
            up = torch.randn(module.out_features, RANK, generator=generator) * 0.1
            module.weight += up @ down
            weights |= {f"{PREFIX}{name}.lora_A.weight": down, f"{PREFIX}{name}.lora_B.weight": up}
    write_adapter(adapter, weights)
    shutil.copytree(folder, merged)
    model.save_pretrained(merged)


def test_adapted_embeddings_beside_markers_are_refused(tmp_path: Path) -> None:
    """vLLM itself refuses them. They could not work: the embeddings of markers are cached with the image, for all
    adapters."""
    from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

    save("mistral3", tmp_path / "model")
    adapter, name = tmp_path / "adapter", f"{PREFIX}model.language_model.embed_tokens.lora_embedding"
    model: Any = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    n_tokens, width = model.get_input_embeddings().weight.shape
    write_adapter(adapter, {f"{name}_A": torch.ones(RANK, n_tokens), f"{name}_B": torch.ones(width, RANK)})
    settings: dict[str, Any] = {"max_model_len": 256, "enable_lora": True, "max_lora_rank": 8}
    with (
        engine(tmp_path / "model", "TokenPruneMistral3", FOPRU, **settings) as llm,
        pytest.raises(ValueError, match="embed_tokens"),
    ):
        llm.llm_engine.add_lora(LoRARequest("embeddings", 1, str(adapter)))


@pytest.mark.parametrize("family", [one for one in FAMILIES if one.name in NAMES], ids=lambda one: one.name)
def test_adapters(family: Family, tmp_path: Path) -> None:
    """One by one and then all together, in steps that end within images, and with cached blocks of requests with a
    different adapter."""
    from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

    folder, requests = tmp_path / "model", family.requests()
    family.save(folder)
    adapters, answers = [None], [expected(folder, FOPRU, requests)]
    for number, name in enumerate(("first", "second"), start=1):
        adapted(folder, tmp_path / name, tmp_path / f"{name}, merged", number)
        adapters.append(LoRARequest(name, number, str(tmp_path / name)))
        answers.append(expected(tmp_path / f"{name}, merged", FOPRU, requests))
    settings: dict[str, Any] = {
        "max_num_seqs": 8,
        "max_model_len": 256,
        "max_num_batched_tokens": family.n_step,
        "enable_lora": True,
        "max_loras": 2,
        "max_lora_rank": 8,
    }
    with engine(folder, family.architecture, FOPRU, **settings) as llm:
        for adapter, wanted in zip(adapters, answers, strict=True):
            outputs = served(llm, requests, adapter)
            for output, answer, other in zip(outputs, wanted, answers[0], strict=True):
                check_equal(output, answer)
                assert adapter is None or difference(output, other) > 0.01


QUANTIZED = ("llava-clip", "qwen2_5_vl", "qwen3_vl")
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


@pytest.mark.parametrize("family", [one for one in FAMILIES if one.name in QUANTIZED], ids=lambda one: one.name)
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
