"""Compare the tokens that SparseVLM leaves after each stage with the authors' code on the same random tensors.

    python evals/dev/peers/sparsevlm.py SPARSEVLM

The argument is a clone of the authors' code at the commit named in evals/results/peers.md. Their loop over the layers
runs with layers of ours, to which the order of the visual tokens makes no difference, because their code puts merged
tokens last. Their tables are for 576 tokens; for other numbers, they get ours, scaled.
"""

import argparse
import ast
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tokenprune import SparseVLM
from tokenprune.evals.dev.peers.functions import source_of
from tokenprune.strategies.shared.recycling import recycling_counts
from tokenprune.tokens import FirstLayerInputs, Layout, StageTokens, TextAttention

#: Visual tokens, text tokens after them, width.
SHAPES = (256, 24, 128), (576, 40, 64), (1024, 60, 32)
BUDGETS = 192, 128, 96, 64  # of 576
N_BEFORE, N_LAYERS, N_HEADS, DRAWS = 35, 32, 4, 8


class Layer:
    """A decoder layer that attends by random projections and changes every token by itself. It records its input."""

    mlp = SimpleNamespace(up_proj=SimpleNamespace(out_features=0))

    def __init__(self, width: int) -> None:
        self.projections = torch.randn(2, width, width) / width**0.5
        self.update = torch.randn(width, width) / width**0.5
        self.seen = torch.empty(0)

    def __call__(self, hidden_states: Tensor, **settings: Any) -> tuple[Tensor, None, Tensor]:
        (self.seen,) = hidden_states
        queries, keys = self.heads(self.seen)
        later = torch.ones(len(self.seen), len(self.seen)).bool().triu(1)
        logits = (queries @ keys.mT / keys.shape[-1] ** 0.5).masked_fill(later, -torch.inf)
        return self.updated(hidden_states), None, logits.softmax(-1)[None]

    def heads(self, hidden: Tensor) -> Tensor:
        """Return queries and keys."""
        projected = (hidden / hidden.square().mean(-1, keepdim=True).sqrt()) @ self.projections
        return projected.unflatten(-1, (N_HEADS, -1)).transpose(1, 2)

    def updated(self, hidden: Tensor) -> Tensor:
        return hidden + 0.1 * (hidden @ self.update).tanh()


class WithoutNoise:
    """torch, but its random numbers, by which their code decides between equally dense tokens, prefer the first."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def rand(self, shape: torch.Size, **settings: Any) -> Tensor:
        return torch.linspace(1, 0, shape[-1]).expand(shape)


def theirs(repository: str, layers: list[Layer], prompt: Tensor, n_visual: int, tables: list[int], budget: int) -> None:
    """Run their choice of raters and their loop over the layers, which record what enters them."""
    folder, space = "llava/model/language_model/", {"hidden_states": prompt[None], "image_shape": n_visual}
    for name in ("utils", "score"):
        exec(source_of(repository, f"{folder}{name}.py"), space)
    space |= {"sparse_token_dict": {budget: tables}, "RETAIN_TOKN": budget, "pre_prompt_length_list": [N_BEFORE]}
    space |= {"v_token_start": N_BEFORE, "v_token_num": n_visual, "text_token_start": N_BEFORE + n_visual}
    space |= dict.fromkeys(("attention_mask", "past_key_values", "output_attentions", "use_cache"))
    space |= {"output_hidden_states": None, "position_ids": torch.arange(len(prompt))[None], "num_token": []}
    space |= {"self": SimpleNamespace(layers=layers, pruning_loc=[2, 6, 15], training=False, all_FLOPs=0)}
    space["torch"] = WithoutNoise()
    space |= {"B": 1, "idx_sprase_layer": 0, "prev_decision": None, "policy": None}
    space["self"].gradient_checkpointing = False
    tree = ast.parse(source_of(repository, f"{folder}modelling_sparse_llama.py"))
    (loop,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.For) and "decoder_layer" in ast.unparse(node.target)
    )
    (choice,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.body[0]).startswith("v_t =")
    )
    exec(compile(ast.Module([choice, loop], []), "modelling_sparse_llama.py", "exec"), space)


def ours(strategy: SparseVLM, layers: list[Layer], prompt: Tensor, n_visual: int) -> list[Tensor]:
    """Return the visual tokens' hidden states after each of the strategy's stages."""
    stages = {stage.layer: stage for stage in strategy.stages(N_LAYERS)}
    before, visual, text = prompt.split([N_BEFORE, n_visual, len(prompt) - N_BEFORE - n_visual])
    entered, still, states = FirstLayerInputs(visual, text), torch.arange(n_visual), []
    layout = Layout.raster((1, 1, n_visual))
    for number, layer in enumerate(layers, 1):
        hidden = torch.cat([before, visual, text])
        queries, keys = layer.heads(hidden)
        before, visual, text = (layer.updated(part) for part in (before, visual, text))
        if number in stages:
            places = torch.arange(len(hidden))
            own, after = places[N_BEFORE:][: len(visual)], places[N_BEFORE + len(visual) :]
            scale, real = keys.shape[-1] ** -0.5, torch.ones(len(hidden)).bool()
            attention = TextAttention(queries, keys, scale, real, own, after)
            tokens = StageTokens(visual, still, layout, text_attention=attention, prompt=lambda: entered)
            selection = strategy.select_at(stages[number], tokens)
            visual, still = visual[selection.kept], still[selection.kept]
            if selection.merged is not None:
                visual = selection.merged.apply(tokens.features, selection.kept)
            states.append(visual)
    return states


def whole(n_visual: int, totals: list[int]) -> list[int]:
    """Return how many tokens each stage leaves unmerged, if these are left in total."""
    counts = []
    for before, total in zip([n_visual, *totals], totals, strict=False):
        fitting = (n for n in range(total, 0, -1) if n + recycling_counts(before - n, 0.3, 0.1)[1] == total)
        counts.append(next(fitting))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sparsevlm", help="the authors' repository")
    options = parser.parse_args()
    table = Table("tokens", "keep ratio", "left after each stage", "the same", "largest difference of a hidden state")
    for n_visual, n_text, width in SHAPES:
        for budget in BUDGETS:
            strategy = SparseVLM(keep_ratio=budget / 576)
            totals = [stage.budget(n_visual) for stage in strategy.stages(N_LAYERS)]
            same, far = 0, 0.0
            for seed in range(DRAWS):
                torch.manual_seed(seed)
                layers = [Layer(width) for _ in range(N_LAYERS)]
                prompt = torch.randn(N_BEFORE + n_visual + n_text, width)
                theirs(options.sparsevlm, layers, prompt, n_visual, whole(n_visual, totals), budget)
                pairs = []
                for layer, own in zip((3, 7, 16), ours(strategy, layers, prompt, n_visual), strict=True):
                    other = layers[layer].seen[N_BEFORE:-n_text]
                    assert len(other) == len(own)
                    pairs.append((other[other[:, 0].argsort()] - own[own[:, 0].argsort()]).abs().max().item())
                same += max(pairs) < 1e-3
                far = max(far, *pairs)
            table.add_row(str(n_visual), f"{budget}/576", str(totals), f"{same} of {DRAWS}", f"{far:.1e}")
    Console().print(table)


if __name__ == "__main__":
    main()
