"""A tiny Mistral 3, Mistral Large 3 or Pixtral in Mistral's own format, and the same model in transformers' format."""

# pyright: reportMissingImports=false

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from helpers.served.models import PATCH, WORDS, decoder, save, tokenizer, tower
from helpers.served.reference import CONVERTED

MISTRAL_IMAGE = "[IMG]"
#: The files of a checkpoint in Mistral's own format.
PARAMS, WEIGHTS, TOKENS = "params.json", "consolidated.safetensors", "tekken.json"
#: Of a published tokenizer of this version, whose file does not list them.
VERSION, N_SPECIALS = "v3", 20
EPSILON, THETA = 1e-5, 10000.0
#: Scaling of frequencies beyond this length, and of queries.
LENGTH, FACTOR, BETA = 64, 16.0, 0.5
YARN = {"rope_type": "yarn", "rope_theta": THETA, "factor": FACTOR, "original_max_position_embeddings": LENGTH}
YARN |= {"attention_factor": 1.0, "llama_4_scaling_beta": BETA}
#: Latent attention, which has the same names in both formats, and experts in two of three layers.
LATENT = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 32}
EXPERTS = {
    "n_routed_experts": "num_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "n_shared_experts": "num_shared_experts",
    "moe_intermediate_size": "expert_hidden_dim",
    "first_k_dense_replace": "first_k_dense_replace",
    "n_group": "num_expert_groups",
    "topk_group": "num_expert_groups_per_tok",
}
N_EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 48}
N_EXPERTS |= {"first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
#: The longer side of an image, at most.
SIDE = 24 * PATCH
#: Names of a language model's settings in transformers' format, and in Mistral's.
SETTINGS = {
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "head_dim": "head_dim",
    "max_position_embeddings": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
#: Parts of names of weights in transformers' format, and in Mistral's.
RENAMED = {
    r"^model\.vision_tower\.": "vision_encoder.",
    r"^model\.multi_modal_projector\.norm\.": "pre_mm_projector_norm.",
    r"^model\.multi_modal_projector\.patch_merger\.": "patch_merger.",
    r"^model\.multi_modal_projector\.linear_1\.": "vision_language_adapter.w_in.",
    r"^model\.multi_modal_projector\.linear_2\.": "vision_language_adapter.w_out.",
    r"^model\.language_model\.embed_tokens\.": "tok_embeddings.",
    r"^model\.language_model\.": "",
    r"^lm_head\.": "output.",
    r"\.mlp\.(gate\.weight$|shared_experts\.|experts\.)": r".\1",
    r"\.self_attn\.": ".attention.",
    r"\.mlp\.": ".feed_forward.",
    r"\.([qkvo]|q_a|q_b|kv_b)_proj\.": r".w\1.",
    r"\.kv_a_proj_with_mqa\.": ".wkv_a_with_mqa.",
    r"\.(q_a|kv_a)_layernorm\.": r".\1_norm.",
    r"\.gate_proj\.": ".w1.",
    r"\.down_proj\.": ".w2.",
    r"\.up_proj\.": ".w3.",
    r"\.input_layernorm\.": ".attention_norm.",
    r"\.post_attention_layernorm\.": ".ffn_norm.",
}


def save_mistral(folder: Path, merge: int = 2, text_class: str = "Mistral", **settings: Any) -> None:
    """With up to 12 x 12 visual tokens of 2 x 2 patches, as Mistral 3, or 24 x 24 of one, as Pixtral. The name of the
    language model's class begins with `text_class`: Ministral3 for Ministral 3, Mistral4 for Mistral Large 3."""
    n_words, latent = N_SPECIALS + 256 + len(WORDS), text_class == "Mistral4"
    text = decoder(n_words, **settings, **({**LATENT, **N_EXPERTS} if latent else {}))
    scaled = text_class != "Mistral"
    rope = YARN if scaled else {"rope_type": "default", "rope_theta": THETA}
    parts = {
        "vision_config": transformers.PixtralVisionConfig(**tower(SIDE), hidden_act="silu"),
        "text_config": getattr(transformers, f"{text_class}Config")(
            **text, rms_norm_eps=EPSILON, rope_parameters=dict(rope), sliding_window=None
        ),
        "image_token_index": 10,
    }
    if merge == 1:
        whole = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
        model: Any = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(**parts, **whole))
    else:
        config = transformers.Mistral3Config(**parts, spatial_merge_size=merge)
        model = transformers.Mistral3ForConditionalGeneration(config)
    save(model, tokenizer(), folder / CONVERTED)
    weights = {one: part for name, weight in model.state_dict().items() for one, part in by_expert(name, weight)}
    theirs = {renamed(name): interleaved(name, weight) for name, weight in weights.items()}
    save_file(theirs, folder / WEIGHTS, {"format": "pt"})
    vision = tower(SIDE, num_channels=3, rope_theta=THETA, image_token_id=10, adapter_bias=merge == 1)
    if merge > 1:
        vision |= {"spatial_merge_size": merge, "add_pre_mm_projector_layer_norm": True}
        vision |= {"mm_projector_id": "patch_merge"}
    params = {theirs: text[name] for name, theirs in SETTINGS.items()}
    params |= {"norm_eps": EPSILON, "rope_theta": THETA, "vision_encoder": vision}
    if scaled:
        yarn = {"original_max_position_embeddings": LENGTH, "factor": FACTOR, "alpha": 1, "beta": 32}
        params["yarn"] = {**yarn, "apply_scale": False}
        params["llama_4_scaling"] = {"original_max_position_embeddings": LENGTH, "beta": BETA}
    if latent:
        experts = {theirs: N_EXPERTS[name] for name, theirs in EXPERTS.items()}
        params |= {**LATENT, "moe": {**experts, "route_every_n": 1, "routed_scale": 1.0}}
    (folder / PARAMS).write_text(json.dumps(params))
    (folder / TOKENS).write_text(json.dumps(tokens(n_words, merge)))


def tokens(n_words: int, merge: int) -> dict[str, Any]:
    """Return a tokenizer with one token per byte and per `w0`, `w1`, ..., which ignores spaces."""
    names = [*(bytes([byte]) for byte in range(256)), *(word.encode() for word in WORDS)]
    return {
        "config": {
            "pattern": r"\S+",
            "num_vocab_tokens": len(names),
            "default_vocab_size": n_words,
            "default_num_special_tokens": N_SPECIALS,
            "version": VERSION,
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(name).decode(), "token_str": None}
            for rank, name in enumerate(names)
        ],
        "image": {"image_patch_size": PATCH, "max_image_size": SIDE, "spatial_merge_size": merge},
    }


def by_expert(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield a weight with its name or, if it is that of all experts, the weights of each."""
    if ".experts." not in name:
        yield name, weight
        return
    start, _, projection = name.rpartition(".")
    for number, expert in enumerate(weight):
        if projection == "down_proj":
            parts = {"down_proj": expert}
        else:
            parts = dict(zip(("gate_proj", "up_proj"), expert.chunk(2), strict=True))
        yield from ((f"{start}.{number}.{part}.weight", one) for part, one in parts.items())


def renamed(name: str) -> str:
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name


def interleaved(name: str, weight: Tensor) -> Tensor:
    """Reorder the rows of queries and keys: transformers rotates the halves of a head, Mistral pairs of neighbours."""
    if not re.search(r"\.[qk]_proj\.weight$", name):
        return weight.clone()
    return weight.unflatten(0, (2, 2, -1)).transpose(1, 2).reshape(weight.shape).clone()


def prompt(mistral: Any, text: str, images: Iterable[Any]) -> tuple[list[int], list[Any]]:
    """Return the IDs that mistral-common writes for a text and its images, and the pixels of each."""
    from mistral_common.protocol.instruct.chunk import ImageChunk

    left, ids, pixels = iter(images), [], []
    for word in text.split():
        if word == MISTRAL_IMAGE:
            encoding = mistral.instruct_tokenizer.mm_encoder(ImageChunk(image=next(left)))
            ids += encoding.tokens
            pixels.append(encoding.image)
        else:
            ids += mistral.instruct_tokenizer.tokenizer.encode(word, bos=False, eos=False)
    return ids, pixels


class MistralProcessor:
    """Prepares prompts for transformers as mistral-common does for vLLM."""

    def __init__(self, folder: Path) -> None:
        from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

        self.mistral = MistralTokenizer.from_file(str(folder / TOKENS))

    def __call__(self, text: list[str], images: Any, **_: Any) -> Any:
        ids, pixels = prompt(self.mistral, text[0], images or ())
        found = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        if pixels:
            sizes = torch.tensor([one.shape[-2:] for one in pixels])
            height, width = sizes.amax(0).tolist()
            found["pixel_values"] = torch.zeros(len(pixels), 3, height, width)
            for padded, one in zip(found["pixel_values"], pixels, strict=True):
                padded[:, : one.shape[-2], : one.shape[-1]] = torch.as_tensor(one)
            found["image_sizes"] = sizes
        return transformers.BatchFeature(found)


def load_mistral(folder: Path) -> tuple[Any, Any]:
    """Return transformers' model of a checkpoint, and a stand-in for its processor."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        folder / CONVERTED, dtype=torch.float32, attn_implementation="sdpa"
    )
    for name, module in model.named_modules():
        if name.endswith(("q_a_layernorm", "kv_a_layernorm")):  # vLLM's norms of latents have the others' epsilon
            vars(module)["variance_epsilon"] = EPSILON
    return model.eval(), MistralProcessor(folder)
