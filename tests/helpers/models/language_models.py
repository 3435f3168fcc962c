"""LLaVA around every causal language model of transformers, tiny and with random weights: what pruning it gives.

`PYTHONPATH=tests python -m helpers.models.language_models` writes the table in adapters/language_models.md.
"""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import tokenprune
from helpers.families.base import IMAGE, decoder
from helpers.families.llava import Llava
from helpers.tiny import prompt
from tokenprune import Grid, UnsupportedError
from tokenprune.adapters import adapter_for

PAGE = Path(__file__).parents[3] / "adapters" / "language_models.md"
BEGIN, END = "<!-- language models -->", "<!-- end of language models -->"
TOLERANCE = 1e-4  # of logits and of attention in float32
WINDOW = 12
#: What transformers raises for a model that it cannot build with SIZES, or run in a LLaVA.
FAILS = (ValueError, TypeError, RuntimeError, AttributeError, LookupError, AssertionError, StrictDataclassError)

#: Sizes, under the names that configs give them.
SIZES = {
    **decoder(head_dim=8, tie_word_embeddings=False),
    **dict.fromkeys(("d_model", "n_embd", "lru_width", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("n_layer", "n_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("n_head", "n_heads", "decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim"), 48),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "mamba_n_groups"), 1),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "ssm_state_size", "mamba_d_state"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size", "mamba_head_dim", "mamba_d_head"), 16),
    **dict.fromkeys(("mamba_num_heads", "mamba_n_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("num_experts_per_tok", "linear_num_key_heads", "n_groups"), 2),
    "qk_head_dim": 16,
    "index_topk": 8,
    "moe_shared_expert_intermediate_size": 24,
}
#: Settings with which single types can be built; None leaves a size out. Layers are needed that fill the cache.
BOTH = {"layer_types": ["linear_attention", "full_attention"]}
MLA = {"head_dim": None, "num_key_value_heads": 4}
OTHERS: dict[str, dict[str, Any]] = {
    "recurrent_gemma": {"num_hidden_layers": 3},
    **dict.fromkeys(("minimax", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"), BOTH),
    **dict.fromkeys(
        ("deepseek_v2", "deepseek_v3", "minicpm3", "youtu", "glm4_moe_lite", "sarvam_mla", "axk1", "axk2"), MLA
    ),
    **dict.fromkeys(("deepseek_v32", "glm_moe_dsa", "dots3_note_text"), MLA),
    **{name: {"rotary_dim": 8} for name in ("gptj", "codegen")},
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "zaya": {"num_experts_per_tok": 1},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
}
#: Types whose smallest models are too large or too slow here.
TOO_LARGE = ("gemma4_text", "longcat_flash", "phi4_multimodal", "roc_bert")
TYPES = [name for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) if name not in TOO_LARGE]


def config_of(name: str, window: bool) -> Any:
    """Return a tiny config of a type; None if windows are asked for and it has none."""
    cls: Any = CONFIG_MAPPING[name]
    known = {*inspect.signature(cls.__init__).parameters, *getattr(cls, "__dataclass_fields__", {})}
    sizes = {key: value for key, value in SIZES.items() if key in known}
    sizes |= OTHERS.get(name, {})
    window_name = cls.attribute_map.get("sliding_window", "sliding_window")
    if window_name in known:
        sizes[window_name] = WINDOW if window else None
        if window and "use_sliding_window" in known:
            sizes |= {"use_sliding_window": True, "max_window_layers": 1}
        if not window and "layer_types" in known and "layer_types" not in sizes:
            sizes["layer_types"] = ["full_attention"] * 2
    elif window:
        return None
    return cls(**{key: value for key, value in sizes.items() if value is not None or key == window_name})


def build(name: str, window: bool, attention: str) -> Any:
    """Return a LLaVA with a language model of this type."""
    return Llava("llava-clip", text_config=config_of(name, window)).build(attention)


def outcome(name: str, window: bool) -> str:
    """Return what pruning a LLaVA with a language model of this type gives: "exact", with what its text attention gives
    if it can be read; why it is refused; "not possible" if the unpatched model cannot be built from SIZES or run; "no
    windows". Or an error that must not be."""
    if window and config_of_or_none(name) is None:
        return "no windows"
    model = next((one for kind in ("sdpa", "eager") if (one := runnable(name, window, kind)) is not None), None)
    if model is None:
        return "not possible"
    try:
        tokenprune.patch(model, Grid()).remove()
    except UnsupportedError as error:
        return f"refused: {reason(str(error))}"
    found = max(ragged(model), masked(model))
    if not found < TOLERANCE:
        return f"WRONG by {found:.0e}"
    return f"exact, {text_attention(model, name, window)}"


def config_of_or_none(name: str) -> Any:
    """Return `config_of` with windows, or True for a type whose config needs more than sizes."""
    try:
        return config_of(name, window=True)
    except FAILS:
        return True


def runnable(name: str, window: bool, attention: str) -> Any:
    """Return a model that transformers can run, or None."""
    try:
        model = build(name, window, attention)
        with torch.no_grad():
            model(**prompt([1, 2]))
    except FAILS:
        return None
    return model


@torch.no_grad()
def ragged(model: Any) -> float:
    """Return the difference of a row's last logits alone and beside a longer one."""
    both = prompt([1, 2])
    real = both["attention_mask"][0].bool()
    one = {"input_ids": both["input_ids"][:1, real], "attention_mask": both["attention_mask"][:1, real]}
    with tokenprune.patch(model, Grid(keep_ratio=0.25)):
        ids = (both["attention_mask"].cumsum(1) - 1).clamp(min=0)
        beside = model(**both, position_ids=ids).logits[0, -1]
        alone = model(**one, pixel_values=both["pixel_values"][:1]).logits[0, -1]
    return float((alone - beside).abs().max())


@torch.no_grad()
def masked(model: Any) -> float:
    """Return the difference of the last logits of a ragged batch from those of masking; 0.0 with layers that have a
    state, which take in masked tokens differently from dropped ones."""
    if not adapter_for(model).decoder.layers.contract.startswith("masking"):
        return 0.0
    inputs = prompt([1, 2])
    with tokenprune.patch(model, Grid(keep_ratio=0.25)) as handle:
        last = model(**inputs).logits[:, -1]
    mask, places = inputs["attention_mask"].clone(), (inputs["input_ids"] == IMAGE).nonzero()
    for image, where in zip(handle.report.images, places.split(36), strict=True):
        dropped = torch.ones(36).index_fill(0, image.kept, 0).bool()
        mask[where[dropped, 0], where[dropped, 1]] = 0
    ids = torch.arange(mask.shape[1]).expand_as(mask)
    return float((model(**{**inputs, "attention_mask": mask}, position_ids=ids).logits[:, -1] - last).abs().max())


@torch.no_grad()
def text_attention(model: Any, name: str, window: bool) -> str:
    """Return what the text attention that strategies read is, against eager attention."""
    adapter, inputs = adapter_for(model), prompt([1])
    if "text_attention" not in adapter.offers:
        return "text attention not read"
    try:
        with tokenprune.probe(model, decoder_layers=[0, 1]) as seen:
            (image,) = seen.run(**inputs)
    except UnsupportedError:
        return "text attention refused"
    maps = build(name, window, "eager")(**inputs, output_attentions=True).attentions
    visual = inputs["input_ids"][0] == IMAGE
    differences = [
        float((image.text_attention[layer].from_last() - weights[0].mean(0)[-1, visual]).abs().max())
        for layer, weights in enumerate(maps)
    ]
    wrong = max(differences)
    return "text attention exact" if wrong < TOLERANCE else f"text attention WRONG by {wrong:.0e}"


def reason(message: str) -> str:
    """Return the part of a refusal's message that says why."""
    for said, short in {
        "has no .layers": "no `.layers`",
        "ignores, so": "ignores its window",
        "layers apply the": "by numbers, a window in full attention",
        "from their content": "masks from content",
        "dropping tokens is not": "by numbers, dropping is not masking",
        "a row beside": "by numbers, a row beside another",
        "is not supported": "unknown layers",
    }.items():
        if said in message:
            return short
    return re.sub(r"\s+", " ", message)[:60]


def table(rows: dict[str, tuple[str, str]]) -> str:
    """Return the Markdown table of the outcomes without and with windows, by type."""
    lines = ["| language model | without windows | with windows |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {off} | {on} |" for name, (off, on) in rows.items())])


def stored() -> dict[str, tuple[str, str]]:
    """Return the rows of the stored table."""
    section = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    cells = [line.strip("| ").split(" | ") for line in section.strip().splitlines()[2:]]
    return {name: (off, on) for name, off, on in cells}


if __name__ == "__main__":  # of all types, or those that are named
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    kept = stored() if len(sys.argv) > 1 else {}
    again = sys.argv[1:] or TYPES
    found = {name: (outcome(name, window=False), outcome(name, window=True)) for name in again}
    made = table({name: {**kept, **found}[name] for name in TYPES})
    PAGE.write_text(f"{head}{BEGIN}\n\n{made}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
