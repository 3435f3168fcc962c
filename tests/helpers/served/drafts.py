"""Draft models of speculative decoding with random weights, saved as vLLM loads them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

#: The language model's sizes.
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}


def save_eagle3(folder: Path, vocabulary: int) -> None:
    """Save a head in EAGLE-3's format, which reads three of the model's hidden states and no images."""
    folder.mkdir()
    config: dict[str, Any] = {**SIZES, "vocab_size": vocabulary, "num_hidden_layers": 1, "rms_norm_eps": 1e-6}
    config |= {"max_position_embeddings": 1024, "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False}
    config |= {"architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "draft_vocab_size": vocabulary}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {f"midlayer.{name}": weight for name, weight in layer(n_inputs=128).items()}
    weights |= {f"midlayer.{name}.weight": torch.ones(64) for name in ("input_layernorm", "hidden_norm")}
    weights |= {
        "fc.weight": random(64, 3 * 64),
        "lm_head.weight": random(vocabulary, 64),
        "norm.weight": torch.ones(64),
    }
    save_file(weights, folder / "model.safetensors")


def save_language_model(folder: Path, llava: Path) -> None:
    """Save only the language model of a saved LLaVA, which answers prompts without images like LLaVA."""
    whole: Any = transformers.LlavaForConditionalGeneration.from_pretrained(llava)
    alone = transformers.LlamaForCausalLM(whole.config.text_config)
    alone.model.load_state_dict(whole.model.language_model.state_dict())
    alone.lm_head.load_state_dict(whole.lm_head.state_dict())
    alone.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(llava).save_pretrained(folder)


def add_mtp(folder: Path) -> None:
    """Add a head for multi-token prediction, which also embeds images, to a saved EXAONE 4.5 or Qwen3.5."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config["text_config"]
    if text["model_type"].startswith("qwen3_5"):
        text["mtp_num_hidden_layers"] = 1
        gated, after = True, "input"  # queries have a gate
    else:
        config |= {"num_nextn_predict_layers": 1, "vocab_size": text["vocab_size"]}
        gated, after = False, "post_feedforward"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    own = {f"layers.0.{name}": weight for name, weight in layer(n_inputs=64, gated=gated).items()}
    own |= {f"layers.0.self_attn.{name}_norm.weight": torch.ones(32) for name in "qk"}
    own |= {"fc.weight": random(64, 128), f"layers.0.{after}_layernorm.weight": torch.ones(64)}
    own |= {f"{name}.weight": torch.ones(64) for name in ("norm", "pre_fc_norm_hidden", "pre_fc_norm_embedding")}
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {f"mtp.{name}": weight for name, weight in own.items()}, folder / "model.safetensors")


def layer(n_inputs: int, gated: bool = False) -> dict[str, Tensor]:
    """Return a decoder layer of these sizes, whose attention reads `n_inputs` numbers per token."""
    shapes = {f"self_attn.{name}_proj": (64, n_inputs) for name in "qkv"} | {"self_attn.o_proj": (64, 64)}
    shapes["self_attn.q_proj"] = (128 if gated else 64, n_inputs)
    shapes |= {"mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64), "mlp.down_proj": (64, 96)}
    weights = {f"{name}.weight": random(*shape) for name, shape in shapes.items()}
    return {**weights, "post_attention_layernorm.weight": torch.ones(64)}


def random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator) * shape[-1] ** -0.5
