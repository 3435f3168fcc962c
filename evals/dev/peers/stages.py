"""Compare what PyramidDrop, AdaToken and FastV keep at every stage with the authors' code, in models of random weights.

    python evals/dev/peers/stages.py PYRAMIDDROP ADATOKEN FASTV

Each argument is a clone of the authors' code at the commit named in evals/results/peers.md. PyramidDrop's and
AdaToken's function ranks and drops given the decoder layers of our model, and the hidden states and position IDs that
reach each stage in our run. FastV's code gets the whole attention of the layer before its stage.
"""

# pyright: reportAttributeAccessIssue=false
# The functions come from other repositories.
import argparse
import ast
import contextlib
import io
from itertools import product
from types import SimpleNamespace
from typing import Any

import torch
from functions import source_of, taken
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import tokenprune
from tokenprune import AdaToken, FastV, PyramidDrop, Strategy

#: The side of the grid of visual tokens, the decoder layers, and the heads, of 16 dimensions each.
SHAPES = ((8, 8, 2), (16, 16, 4), (24, 32, 8))
SEEDS, IMAGE, BEFORE, AFTER = 4, 90, 5, 20
PATH = "llava/model/modeling_llama_pdrop.py"


def model_of(side: int, layers: int, heads: int) -> Any:
    width = 16 * heads
    text = LlamaConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        vocab_size=96,
    )
    tower = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=4 * side,
        patch_size=4,
    )
    config = LlavaConfig(vision_config=tower, text_config=text, image_token_index=IMAGE)
    model: Any = LlavaForConditionalGeneration(config).eval()
    model.set_attn_implementation("eager")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.15)
    return model


def causal(mask: Tensor, shape: tuple[int, int], like: Tensor, past_key_values_length: int) -> Tensor:
    """Stands in for transformers 4.37's function, for a row without padding."""
    return torch.full((1, 1, shape[1], shape[1]), torch.finfo(like.dtype).min).triu(1)


def as_theirs(model: Any, number: int) -> dict[int, Any]:
    """Return a decoder layer with the attributes that theirs have in transformers 4.37."""
    layer, config = model.model.language_model.layers[number], model.config.text_config
    attention, rotary = layer.self_attn, model.model.language_model.rotary_emb

    def angles(values: Tensor, seq_len: int) -> tuple[Tensor, Tensor]:
        cos, sin = rotary(values, torch.arange(1024)[None])
        return cos[0], sin[0]

    theirs = SimpleNamespace(
        q_proj=attention.q_proj,
        k_proj=attention.k_proj,
        v_proj=attention.v_proj,
        num_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        rotary_emb=angles,
    )
    return {number: SimpleNamespace(self_attn=theirs, input_layernorm=layer.input_layernorm)}


def kept_by_theirs(space: dict[str, Any], model: Any, layer: int, states: Tensor, ids: Tensor, n_kept: int) -> Tensor:
    """Return which of the visual tokens that reach a stage their code keeps."""
    n_left = states.shape[1] - BEFORE - AFTER
    owner = SimpleNamespace(
        config=SimpleNamespace(tokenizer_padding_side="right", tokenizer_model_max_length=4096),
        layers=as_theirs(model, layer),
        image_tokens=[1],
        image_token_ratio_list=[n_left, n_kept],
        layer_list=[layer],
        image_token_posi=[BEFORE],
        prompt_len=[BEFORE + AFTER],
        training=False,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        out = space["pdrop_rank_drop"](owner, 0, layer, states, ids, None, None)
    kept, left = out[2][0, BEFORE : BEFORE + n_kept], states[0, BEFORE : BEFORE + n_left]
    return (kept[:, None] == left).all(-1).nonzero()[:, 1]


def kept_by_fastv(repository: str, attention: Tensor, n_visual: int, n_kept: int) -> Tensor:
    """Return which visual tokens FastV's code keeps, given the attention of the layer before its stage."""
    path = "src/transformers/src/transformers/models/llama/modeling_llama.py"
    nodes = ast.walk(ast.parse(source_of(repository, path)))
    branches = (node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "idx == AGG_LAYER")
    (block,) = [node for node in branches if "hidden_states[:, keep_indexs, :]" in ast.unparse(node)]
    space: dict[str, Any] = {"torch": torch, "layer_outputs": (None, attention), "device": "cpu", "batch_size": 1}
    space |= {"SYS_LENGTH": BEFORE, "IMAGE_TOKEN_LENGTH": n_visual, "ATTENTION_RANK": n_kept, "inputs_embeds": None}
    space |= {"seq_length_with_past": attention.shape[-1], "hidden_states": torch.zeros(1, attention.shape[-1], 1)}
    space["self"] = SimpleNamespace(_prepare_decoder_attention_mask=lambda *args: None)
    exec(compile(ast.Module(block.body, []), path, "exec"), space)
    kept = space["keep_indexs"] - BEFORE
    return kept[(kept >= 0) & (kept < n_visual)]


def compared(repository: str, strategy: Strategy, shape: tuple[int, int, int], seed: int) -> list[bool]:
    """Return for each stage whether theirs and ours keep the same tokens."""
    torch.manual_seed(seed)
    model, reached, attention = model_of(*shape), {}, {}
    n = shape[0] ** 2
    ids = torch.cat([torch.randint(2, 80, (BEFORE,)), torch.full((n,), IMAGE), torch.randint(2, 80, (AFTER,))])[None]
    for number, layer in enumerate(model.model.language_model.layers):
        layer.register_forward_pre_hook(lambda module, args, number=number: reached.update({number: args[0]}))
        layer.self_attn.register_forward_hook(lambda module, args, out, at=number: attention.update({at: out[1]}))
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        model(input_ids=ids, pixel_values=torch.randn(1, 3, 4 * shape[0], 4 * shape[0]))
    (image,) = handle.report.images
    if isinstance(strategy, FastV):
        (stage,) = image.stages
        theirs = kept_by_fastv(repository, attention[stage.layer - 1], n, len(stage.kept))
        return [theirs.tolist() == stage.kept.tolist()]
    space = taken(
        repository, PATH, "pdrop_rank_drop", "apply_rotary_pos_emb", "rotate_half", IGNORE_INDEX=-100,
        _prepare_4d_causal_attention_mask=causal,
    )  # fmt: skip
    same, still = [], torch.arange(n)
    for stage in image.stages:
        places = torch.cat([torch.arange(BEFORE), BEFORE + still, torch.arange(BEFORE + n, BEFORE + n + AFTER)])[None]
        with torch.no_grad():
            theirs = kept_by_theirs(space, model, stage.layer, reached[stage.layer], places, len(stage.kept))
        same.append(still[theirs].tolist() == stage.kept.tolist())
        still = stage.kept
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = {"pyramiddrop": (PyramidDrop, (0.3, 0.5, 0.75)), "adatoken": (AdaToken, (0.4, 0.6375, 0.8))}
    peers |= {"fastv": (FastV, (0.1, 0.25, 0.5))}
    for name in peers:
        parser.add_argument(name, help="the authors' repository")
    options = parser.parse_args()
    table = Table("strategy", "visual tokens", "keep ratios", "stages", "the same")
    for (name, (kind, ratios)), shape in product(peers.items(), SHAPES):
        runs = product(ratios, range(SEEDS))
        same = [equal for ratio, seed in runs for equal in compared(getattr(options, name), kind(ratio), shape, seed)]
        table.add_row(name, str(shape[0] ** 2), ", ".join(map(str, ratios)), str(len(same)), str(sum(same)))
    Console().print(table)


if __name__ == "__main__":
    main()
