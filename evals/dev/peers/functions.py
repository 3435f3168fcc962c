"""Compare the selections of Nuwa, SCOPE, HoloV, DART, PruneSID and IVCPrune, and AdaToken's schedule, with the authors'
code on the same random tensors.

    python evals/dev/peers/functions.py NUWA SCOPE HOLOV DART PRUNESID IVCPRUNE ADATOKEN

Each argument is a clone of the authors' code at the commit named in evals/results/peers.md. Only the functions that
select are taken from it, so that its old requirements are not needed.
"""

# pyright: reportAttributeAccessIssue=false
# The functions come from other repositories.
import argparse
import ast
import contextlib
import io
import math
import os
import subprocess
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from tokenprune.evals.search.adatoken import contributions, remaining_shares
from tokenprune.strategies import IVCPrune
from tokenprune.strategies.in_llm.dart import least_similar
from tokenprune.strategies.pre_llm.holov import order_by_crop
from tokenprune.strategies.pre_llm.nuwa import QUANTILE, gathering_weights, nearness
from tokenprune.strategies.pre_llm.prunesid import component_of_each, mean_cosine, shares_of_groups, suppress
from tokenprune.strategies.pre_llm.scope import most_covering
from tokenprune.strategies.shared.similarity import unit_vectors
from tokenprune.strategy import Stage
from tokenprune.tokens import Layout, StageTokens, TextAttention
from tokenprune.tokens.cells import cell_side, order_by_cell, rank_within, selection_cells

SIDE, WIDTH, SEEDS = 24, 64, 8


class InOrder(dict[Any, None]):
    """A set that iterates in insertion order, unlike Python's."""

    def __init__(self, members: Any = ()) -> None:
        super().__init__(dict.fromkeys(members))

    def update(self, members: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as a set does
        super().update(dict.fromkeys(members))

    def difference_update(self, members: Any) -> None:
        for member in members:
            self.pop(member, None)

    def __sub__(self, other: Any) -> "InOrder":
        return InOrder(member for member in self if member not in other)


def source_of(repository: str, path: str) -> str:
    """Return a file of a repository's last commit."""
    shown = subprocess.run(
        ["git", "-C", repository, "show", f"HEAD:{path}"], check=True, capture_output=True, text=True
    )
    return shown.stdout


def taken(repository: str, path: str, *names: str, **given: Any) -> dict[str, Any]:
    """Return the functions and classes of these names from a file of a repository's last commit, without its imports.
    `given` are further names that they use."""
    nodes = ast.walk(ast.parse(source_of(repository, path)))
    chosen: list[Any] = [node for node in nodes if getattr(node, "name", None) in names]
    space: dict[str, Any] = {"torch": torch, "nn": torch.nn, "F": functional, "math": math, "os": os, "set": InOrder}
    space.update(LlamaConfig=object, Optional=Optional, **given)
    exec(compile(ast.Module(chosen, []), path, "exec"), space)
    return space


def nuwa(repository: str, seed: int) -> tuple[list[int], list[int], float]:
    """Return the kept indices of theirs and ours, and the largest difference between features. Theirs are first divided
    by the sums of their weights, which a channel of ones reveals."""
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
    n = SIDE**2 + seed  # so that crops of unequal length occur too
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


class Exact:
    """torch, but with exact instead of approximate principal components, and with stable sorting."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def pca_lowrank(self, matrix: Tensor, q: int) -> tuple[Tensor, Tensor, Tensor]:
        centred = matrix.double() - matrix.double().mean(-2, keepdim=True)
        left, values, right = torch.linalg.svd(centred, full_matrices=False)
        return left[..., :q].float(), values[..., :q].float(), right.mT[..., :q].float()

    def argsort(self, values: Tensor, **settings: Any) -> Tensor:
        return torch.argsort(values, stable=True, **settings)


def prunesid(repository: str, seed: int) -> tuple[list[int], list[int], float]:
    """Their budget of 32, 64, 128 or 192 tokens includes the CLS token, which they always keep."""
    torch.manual_seed(seed)
    total = (32, 64, 128, 192)[seed % 4]
    names = "CLIPVisionTower_PruneSID", "batch_pca", "batch_similarity_nms"
    space = taken(repository, "prunesid/prunesid_llava/clip_encoder.py", *names)
    space["torch"] = Exact()
    centres = torch.randn(24, WIDTH)[torch.randint(24, (SIDE**2 + 1,))]
    states, attention = (centres + torch.randn_like(centres))[None], torch.randn(1, 4, SIDE**2 + 1, SIDE**2 + 1)
    attention = attention.softmax(-1)
    out = SimpleNamespace(hidden_states=[states] * 3, attentions=[attention] * 3)
    theirs = space[names[0]]()
    theirs.__dict__.update(need_token_num=total)
    object.__setattr__(theirs, "vision_tower", lambda *args, **kwargs: out)
    type(theirs).device, type(theirs).dtype = "cpu", torch.float32
    kept = theirs(torch.zeros(1, 3, 2, 2))[1][0, 1:] - 1

    features, scores, n_kept = states[0, 1:], attention[0, :, 0, 1:].sum(0), total - 1
    vectors, groups = unit_vectors(features), component_of_each(features, total // 4)
    order, n_free = suppress(vectors, scores, groups, total / 32 * mean_cosine(vectors))
    sizes = groups.bincount(minlength=len(n_free)).tolist()
    shares = shares_of_groups(sizes, n_free.tolist(), n_kept, 5 * math.ceil(total / 64))
    ours = (rank_within(-order.float(), groups) < torch.tensor(shares)[groups]).nonzero()[:, 0]
    return sorted(kept.tolist()), ours.tolist(), 0.0


def ivcprune(repository: str, seed: int) -> tuple[list[int], list[int], float]:
    """Compare with the selecting block of their `forward` for Qwen2.5-VL. Ours gets the text without the two tokens
    after the image, and one component of the position IDs."""
    path = "transformers/src/transformers/models/qwen2_5_vl/modeling_qwen2_5_vl.py"
    name, begin, n_text = "calculate_avg_similarity_for_subset_einsum", 5, 20
    space = taken(repository, path, name)
    tree = ast.parse(source_of(repository, path))
    branches = (node for node in ast.walk(tree) if isinstance(node, ast.If))
    (block,) = [node for node in branches if ast.unparse(node.test) == "layer_idx == IVCP_k"]
    end = next(i for i, line in enumerate(block.body) if "torch.unique(keep_indexs" in ast.unparse(line))
    torch.manual_seed(seed)
    length = begin + SIDE**2 + n_text
    values, angles = torch.randn(1, 4, length, 16), torch.arange(length)[:, None] / 100 ** (torch.arange(8) / 8)
    cos, sin = (torch.cat([part, part], -1) for part in (angles.cos(), angles.sin()))
    owner = SimpleNamespace(head_dim=16)
    setattr(owner, name, lambda *args, **kwargs: space[name](owner, *args, **kwargs))
    space |= {
        "self": owner,
        "critical_value_states": values.transpose(1, 2),
        "position_embeddings": tuple(part.expand(3, 1, -1, -1) for part in (cos, sin)),
        "IVCP_image_token_start_index": begin,
        "IVCP_image_token_length": SIDE**2,
        "seq_length_with_past": length,
        "device": "cpu",
    }
    exec(compile(ast.Module(block.body[: end + 1], []), path, "exec"), space)
    theirs = space["keep_indexs"] - begin
    visual, text = torch.arange(begin, begin + SIDE**2), torch.arange(begin + SIDE**2 + 2, length)
    attention = TextAttention(
        values[0],
        values[0],
        1.0,
        torch.ones(length).bool(),
        visual,
        text,
        values=values[0],
        rotation=torch.stack([cos, sin]),
    )
    tokens = StageTokens(torch.zeros(SIDE**2, 1), torch.arange(SIDE**2), Layout.raster((1, SIDE, SIDE)))
    ours = IVCPrune(keep_ratio=0.5).select_at(Stage(1, 0.5), replace(tokens, text_attention=attention))
    return theirs[(theirs >= 0) & (theirs < SIDE**2)].tolist(), ours.kept.tolist(), 0.0


def adatoken(repository: str, seed: int) -> tuple[list[float], list[float], float]:
    """Return the rounded contributions, and by how much the error of their curve is smaller than that of ours, or 0.
    They get contributions in per cent, the unit of their curve, although the released code passes fractions."""
    names = "calculate_EMA_information", "exp_decay", "calculate_derivatives", "fit_function"
    space = taken(repository, "llava/eval/ATE_inference.py", *names)
    space["np"] = np
    space["MinMaxScaler"] = lambda: SimpleNamespace(fit_transform=lambda v: (v - v.min()) / (v.max() - v.min()))
    torch.manual_seed(seed)
    fall = torch.linspace(1, 0, 32) * (seed + 1) / SEEDS
    intra, inter = (torch.rand(32) * 0.2 + fall).double(), (torch.rand(32) * 0.2 + fall).double()
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = space[names[0]](list(intra.clone()), list(inter), 32)
    ours = contributions(intra.tolist(), inter.tolist())

    def error(curve: Any) -> float:
        return float(((curve - theirs) ** 2).sum() + ((np.gradient(curve) - np.gradient(theirs)) ** 2).sum())

    with np.errstate(all="ignore"):
        fitted = space["exp_decay"](np.arange(1, 32), *space["fit_function"](theirs, 100 * theirs, 10)) / 100
    better = error(np.array(remaining_shares(ours, 32))) - error(fitted)
    return np.round(theirs, 9).tolist(), np.round(ours, 9).tolist(), max(0.0, better)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = {"nuwa": nuwa, "scope": scope, "holov": holov, "dart": dart}
    peers |= {"prunesid": prunesid, "ivcprune": ivcprune, "adatoken": adatoken}
    for name in peers:
        parser.add_argument(name, help="the authors' repository")
    options = parser.parse_args()
    table = Table("strategy", "draws", "the same", "largest difference of features, or of errors")
    for name, compared in peers.items():
        results = [compared(getattr(options, name), seed) for seed in range(SEEDS)]
        same = sum(theirs == ours for theirs, ours, _ in results)
        table.add_row(name, str(SEEDS), f"{same} of {SEEDS}", f"{max(far for *_, far in results):.1e}")
    Console().print(table)


if __name__ == "__main__":
    main()
