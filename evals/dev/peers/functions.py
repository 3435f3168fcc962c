"""Compare the selections of Nuwa, SCOPE, HoloV and DART with the authors' functions on the same random tensors.

    python evals/dev/peers/functions.py NUWA SCOPE HOLOV DART

Each argument is a clone of the authors' code, at the commits that evals/results/peers.md names. Only
the functions that select are taken from it, so that their old requirements are not needed.
"""

# pyright: reportAttributeAccessIssue=false
# The functions are those of other repositories.
import argparse
import ast
import math
import os
import subprocess
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from tokenprune.strategies._parts.similarity import unit_vectors
from tokenprune.strategies.in_llm.dart import least_similar
from tokenprune.strategies.pre_llm.holov import order_by_crop
from tokenprune.strategies.pre_llm.nuwa import QUANTILE, gathering_weights, nearness
from tokenprune.strategies.pre_llm.scope import most_covering
from tokenprune.tokens import Layout
from tokenprune.tokens.cells import cell_side, order_by_cell, selection_cells

SIDE, WIDTH, SEEDS = 24, 64, 8


class InOrder(dict):
    """A set that is gone through in the order in which its members came, unlike Python's."""

    def __init__(self, members: Any = ()) -> None:
        super().__init__(dict.fromkeys(members))

    def update(self, members: Any) -> None:
        super().update(dict.fromkeys(members))

    def difference_update(self, members: Any) -> None:
        for member in members:
            self.pop(member, None)

    def __sub__(self, other: Any) -> "InOrder":
        return InOrder(member for member in self if member not in other)


def source_of(repository: str, path: str) -> str:
    """A file of a repository's last commit."""
    shown = subprocess.run(
        ["git", "-C", repository, "show", f"HEAD:{path}"], check=True, capture_output=True, text=True
    )
    return shown.stdout


def taken(repository: str, path: str, *names: str, **given: Any) -> dict[str, Any]:
    """The functions and classes of these names in a file of a repository's last commit, without its imports; `given`
    are further names that they use."""
    found = [node for node in ast.walk(ast.parse(source_of(repository, path))) if getattr(node, "name", None) in names]
    space: dict[str, Any] = {"torch": torch, "nn": torch.nn, "F": functional, "math": math, "os": os, "set": InOrder}
    space.update(LlamaConfig=object, **given)
    exec(compile(ast.Module(found, []), path, "exec"), space)
    return space


def nuwa(repository: str, seed: int) -> tuple[list[int], list[int], float]:
    """Kept indices of theirs and ours, and the largest difference of features once theirs are divided by the sums of
    their weights, which a channel of ones shows."""
    space = taken(repository, "nuwa/clip_encoder.py", "CLIPVisionTower_Nuwa", "_create_distance_penalty_matrix")
    torch.manual_seed(seed)
    states = [torch.randn(1, SIDE**2 + 1, WIDTH) + 0.5 for _ in range(25)]
    states[-2][..., 0] = 1
    attention = torch.randn(1, 4, SIDE**2 + 1, SIDE**2 + 1).mul(2).softmax(-1)
    total = (64, 128, 192)[seed % 3]

    class Tower(SimpleNamespace):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return SimpleNamespace(hidden_states=states, attentions=[attention] * 24)

    tower = Tower(_info={"matain_token": total, "distance": 280}, device="cpu", dtype=torch.float32)
    theirs = space["CLIPVisionTower_Nuwa"]()
    theirs.__dict__.update(select_layer=-2)
    object.__setattr__(theirs, "vision_tower", tower)
    type(theirs).device = "cpu"
    out = theirs(torch.zeros(1, 3, 2, 2))
    features, indices = out[0][0], out[1]
    scores = attention[0, :, 0, 1:].sum(0)
    n_kept = round(1.75 * total)
    layout = Layout.raster((1, SIDE, SIDE))
    order = order_by_cell(scores, selection_cells(layout, cell_side(n_kept, SIDE**2)), n_kept)
    kept = order[:n_kept].sort().values
    weak = kept[scores[kept] < scores[kept].quantile(QUANTILE)]
    vectors = unit_vectors(torch.stack(states[16:25]).mean(0)[0, 1:])
    own = states[-2][0, 1:].clone()
    own[weak] = gathering_weights(vectors, weak, nearness(layout, weak, 280**0.5)) @ states[-2][0, 1:]
    return indices.flatten().tolist(), kept.tolist(), float((features / features[:, :1] - own[kept]).abs().max())


def scope(repository: str, seed: int) -> tuple[list[int], list[int], float]:
    torch.manual_seed(seed)
    features, attention = torch.randn(SIDE**2, WIDTH), torch.randn(SIDE**2).softmax(0)
    theirs = taken(repository, "scope/clip_encoder.py", "SCOPE")["SCOPE"](features[None], 64, attention[None])[0][0]
    return theirs.tolist(), most_covering(unit_vectors(features), attention, 64).tolist(), 0.0


def holov(repository: str, seed: int) -> tuple[list[int], list[int], float]:
    torch.manual_seed(seed)
    n = SIDE**2 + seed  # crops of unequal lengths, too
    features, attention = torch.randn(1, n, WIDTH), torch.randn(n).mul(0.5).softmax(0)
    theirs = taken(repository, "qwen-model-HoloV/utils.py", "HoloV")["HoloV"](features, attention, 16, 64)[1]
    return sorted(theirs.tolist()), order_by_crop(attention, 16, 64)[:64].sort().values.tolist(), 0.0


def dart(repository: str, seed: int) -> tuple[list[int], list[int], float]:
    torch.manual_seed(seed)
    n_text, begin = 20, 5
    length = begin + SIDE**2 + n_text
    states, keys = torch.randn(1, length, WIDTH), torch.randn(1, 4, length, 16)
    config = SimpleNamespace(
        text_length=None,
        DART_config={
            "K": 2,
            "image_token_start_index": begin,
            "image_token_length": SIDE**2,
            "max_num_trunction": 128,
            "pivot_image_token": 4,
            "pivot_text_token": 4,
            "reduction_ratio": 0.0,
        },
    )
    space = taken(repository, "llava/model/language_model/modeling_llama_self.py", "get_retained_image_token")
    theirs: Tensor = space["get_retained_image_token"](None, config, states, keys) - begin
    norms = keys[0].abs().sum((0, 2))
    visual, text = slice(begin, begin + SIDE**2), slice(begin + SIDE**2, length)
    own = norms[visual].argsort(descending=True)[:4]
    other = unit_vectors(states[0, text])[norms[text].argsort(descending=True)[:4]]
    kept = least_similar(unit_vectors(states[0, visual]), own, other, len(theirs))
    return sorted(theirs.tolist()), sorted(kept.tolist()), 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = {"nuwa": nuwa, "scope": scope, "holov": holov, "dart": dart}
    for name in peers:
        parser.add_argument(name, help="the authors' repository")
    options = parser.parse_args()
    table = Table("strategy", "draws", "kept the same", "largest difference of features")
    for name, compared in peers.items():
        results = [compared(getattr(options, name), seed) for seed in range(SEEDS)]
        same = sum(theirs == ours for theirs, ours, _ in results)
        table.add_row(name, str(SEEDS), f"{same} of {SEEDS}", f"{max(far for *_, far in results):.1e}")
    Console().print(table)


if __name__ == "__main__":
    main()
