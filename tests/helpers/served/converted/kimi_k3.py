"""A tiny Kimi K3 or K3.1, for which transformers has no class, and the same model as a Kimi K2.5 with another tower.

Its own language model runs only on GPUs. Here, vLLM's Kimi K3 has that of Kimi K2.5."""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.served.models import N_LAYERS, PATCH
from helpers.served.native.packed import KIMI_IMAGE, save_kimi
from helpers.served.reference import CONVERTED

K3_IMAGE = "<|kimi_image_placeholder|>"
CONTENT = "<|media_content|>"
#: The width of the attention's queries, which differs from the rest of the tower.
WIDTH, QKV_WIDTH, N_HEADS, MLP_WIDTH = 64, 96, 2, 80
EPSILON = 1e-5
KIMI_K3 = ("TokenPruneKimiK3", "TokenPruneKimiK31")
#: A file with the tower and the projector, in the folder of the Kimi K2.5 that lacks them.
TOWER = "tower.safetensors"
SIZES = ("140x112", "200x90", "112x224")


def save_kimi_k3(folder: Path, **settings: Any) -> None:
    """Kimi K3 with visual tokens of 2 x 2 patches."""
    converted = folder / CONVERTED
    save_kimi(converted, K3_IMAGE, CONTENT, "image", *SIZES, **settings)
    tower = draw_tower()
    save_file(tower, converted / TOWER)
    language = {
        name: weight
        for name, weight in load_file(converted / "model.safetensors").items()
        if name.startswith("language_model.")
    }
    save_file({**language, **tower}, folder / "model.safetensors", {"format": "pt"})
    transformers.AutoTokenizer.from_pretrained(converted).save_pretrained(folder)
    media = json.loads((converted / "processor_config.json").read_text())["image_processor"]["media_proc_cfg"]
    (folder / "preprocessor_config.json").write_text(json.dumps({"media_proc_cfg": media}))
    config = json.loads((converted / "config.json").read_text())
    text = {**config["text_config"], "model_type": "kimi_linear"}
    vision = {"patch_size": PATCH, "init_pos_emb_height": 8, "init_pos_emb_width": 8, "projector_ln_eps": EPSILON}
    vision |= {"vt_num_attention_heads": N_HEADS, "vt_num_hidden_layers": N_LAYERS, "vt_hidden_size": WIDTH}
    vision |= {"vt_intermediate_size": MLP_WIDTH, "qkv_hidden_size": QKV_WIDTH}
    published = {
        "architectures": ["KimiK3ForConditionalGeneration"],
        "model_type": "kimi_k3",
        "media_placeholder_token_id": config["image_token_id"],
        "vision_config": vision,
        "text_config": {**text, "num_experts": text["n_routed_experts"]},
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(published))


def save_kimi_k31(folder: Path, **settings: Any) -> None:
    """The same model as Kimi K3.1."""
    save_kimi_k3(folder, **settings)
    config = json.loads((folder / "config.json").read_text())
    names = {"architectures": ["KimiK31ForConditionalGeneration"], "model_type": "kimi_k31"}
    (folder / "config.json").write_text(json.dumps({**config, **names}))


def draw_tower() -> dict[str, Tensor]:
    """Draw the weights of the vision tower and the projector, under the names of published checkpoints."""
    generator = torch.Generator().manual_seed(1)

    def matrix(*shape: int) -> Tensor:
        return torch.empty(shape).normal_(std=0.15, generator=generator)

    def norm() -> Tensor:
        return torch.empty(WIDTH).uniform_(0.5, 1.5, generator=generator)

    patches = {
        "patch_embed.proj.weight": matrix(WIDTH, 3, PATCH, PATCH),
        "patch_embed.pos_emb.weight": matrix(8, 8, 64),
    }
    layers = {
        f"encoder.blocks.{number}.{name}": weight
        for number in range(N_LAYERS)
        for name, weight in (
            ("norm0.weight", norm()),
            ("norm1.weight", norm()),
            ("wqkv.weight", matrix(3 * QKV_WIDTH, WIDTH)),
            ("wo.weight", matrix(WIDTH, QKV_WIDTH)),
            ("mlp.fc0.weight", matrix(MLP_WIDTH, WIDTH)),
            ("mlp.fc1.weight", matrix(WIDTH, MLP_WIDTH)),
        )
    }
    tower = {**patches, **layers, "encoder.final_layernorm.weight": norm()}
    projector = {"proj.0.weight": matrix(4 * WIDTH, 4 * WIDTH), "proj.2.weight": matrix(WIDTH, 4 * WIDTH)}
    projector["post_norm.weight"] = norm()
    found = {f"vision_tower.{name}": weight for name, weight in tower.items()}
    return {**found, **{f"mm_projector.{name}": weight for name, weight in projector.items()}}


def see_as_kimi_k3(model: Any, folder: Path) -> None:
    """Give a Kimi K2.5 the vision tower that was saved with it. Does nothing without that file."""
    if not (folder / TOWER).exists():
        return
    weights, tower = load_file(folder / TOWER), model.model.vision_tower
    parts = {name.removeprefix("vision_tower.").removesuffix(".weight"): one for name, one in weights.items()}
    patches = tower.patch_embed
    patches.proj.load_state_dict({"weight": parts["patch_embed.proj"], "bias": torch.zeros(WIDTH)})
    patches.pos_emb.load_state_dict({"position_embeddings": parts["patch_embed.pos_emb"]})
    patches.pos_emb.interpolation_mode = "bilinear"
    tower.config.head_dim = QKV_WIDTH // N_HEADS
    tower.rotary_emb = type(tower.rotary_emb)(tower.config)
    for number, layer in enumerate(tower.layers):
        own, attention = f"encoder.blocks.{number}.", layer.attn
        layer.norm1, layer.norm2 = (rms_norm(parts[own + name]) for name in ("norm0", "norm1"))
        queries, keys, values = parts[own + "wqkv"].chunk(3)
        attention.head_dim = tower.config.head_dim
        attention.scaling = attention.head_dim**-0.5
        attention.q_proj, attention.k_proj = linear(by_halves(queries)), linear(by_halves(keys))
        attention.v_proj, attention.proj = linear(values), linear(parts[own + "wo"])
        layer.mlp.fc1, layer.mlp.fc2 = linear(parts[own + "mlp.fc0"]), linear(parts[own + "mlp.fc1"])
    tower.final_layernorm = rms_norm(parts["encoder.final_layernorm"])
    model.model.mm_projector = nn.Sequential(
        nn.Flatten(1),
        linear(parts["mm_projector.proj.0"]),
        nn.GELU(),
        linear(parts["mm_projector.proj.2"]),
        rms_norm(parts["mm_projector.post_norm"], EPSILON),
        nn.Unflatten(0, (-1, 1)),
    )


def by_halves(weight: Tensor) -> Tensor:
    """Reorder the rows of each head: Kimi rotates even and odd ones together, transformers the two halves."""
    return weight.view(N_HEADS, -1, 2, WIDTH).transpose(1, 2).reshape(weight.shape)


def linear(weight: Tensor) -> nn.Linear:
    found = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    found.load_state_dict({"weight": weight})
    return found


def rms_norm(weight: Tensor, epsilon: float | None = None) -> nn.RMSNorm:
    found = nn.RMSNorm(len(weight), eps=epsilon)
    found.load_state_dict({"weight": weight})
    return found


def with_sizes(text: str, images: Any) -> str:
    """Return a prompt for Kimi K3 as one for Kimi K2.5, given the seed, width and height of each image."""
    start, *others = KIMI_IMAGE.split()
    for _, width, height in images if K3_IMAGE in text else ():
        text = text.replace(K3_IMAGE, " ".join([start, "image", f"{width}x{height}", CONTENT, *others]), 1)
    return text


WITHOUT_STATES = {"is_hybrid": False, "has_inner_state": False}


def run_kimi_k3_on_cpus() -> None:
    """Make vLLM build Kimi K3 and K3.1 with the language model of Kimi K2.5, which has no state."""
    from vllm import ModelRegistry

    for name in KIMI_K3:
        ModelRegistry.register_model(name, stand_in())


def state_of_requests(model: Any) -> Any:
    """Return what model runner V2 keeps of the requests of a model without states of its own."""
    from vllm.v1.worker.gpu.model_states.default import DefaultModelState

    return DefaultModelState


@cache
def stand_in() -> Any:
    from vllm.models.kimi_k3.nvidia import model

    from tokenprune.serving.vllm.models.kimi_k3 import PrunedKimiK3

    make = model.init_vllm_registered_model

    def make_another(**arguments: Any) -> Any:
        found = make(**{**arguments, "architectures": ["DeepseekV2ForCausalLM"]})
        found.process_weights_after_loading = lambda: None
        return found

    model.init_vllm_registered_model = make_another
    return type("StandIn", (PrunedKimiK3,), {**WITHOUT_STATES, "get_model_state_cls": state_of_requests})
