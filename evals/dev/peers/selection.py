"""Compare what VisPruner, CDPruner, ToMe and PixelPrune keep, or merge in one step, with the authors' code on the same
random tensors: three sizes, three budgets or thresholds, 4 draws each.

    python evals/dev/peers/selection.py VISPRUNER CDPRUNER TOME PIXELPRUNE

Each argument is a clone of the authors' code at the commit named in evals/results/peers.md.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tokenprune import CDPruner
from tokenprune.evals.dev.peers.functions import taken
from tokenprune.strategies.in_tower.tome import merged_down
from tokenprune.strategies.pre_llm.vispruner import drop_duplicates
from tokenprune.strategies.pre_tower.pixelprune import prediction_errors
from tokenprune.strategies.shared.similarity import unit_vectors
from tokenprune.tokens import Layout, VisualTokens

#: Rows and columns, and width.
SHAPES = (16, 256), (24, 640), (32, 1024)
DRAWS = 4
ARCHITECTURE = "llava/model/llava_arch.py"

#: What theirs and ours keep, or how they weight tokens.
Pair = tuple[Sequence[Any], Sequence[Any]]


def model_of(tower: Any, **settings: Any) -> SimpleNamespace:
    """Return what a LLaVA's `encode_images` reads of it, with a projector that changes nothing."""
    core = SimpleNamespace(get_vision_tower=lambda: tower, mm_projector=lambda features: features)
    return SimpleNamespace(get_model=lambda: core, **settings)


def vispruner(repository: str, side: int, width: int, share: float) -> Pair:
    features, attention = torch.randn(1, side**2, width), torch.randn(1, 4, side**2).softmax(-1)
    n_kept = 4 * round(share * side**2 / 4)
    model = model_of(
        lambda *args, **kwargs: (features, attention),
        get_visual_token_num=lambda: n_kept,
        get_important_ratio=lambda: 0.5,
    )
    mask: Tensor = taken(repository, ARCHITECTURE, "encode_images")["encode_images"](model, None)[1]
    order = attention[0].mean(0).argsort(descending=True)
    diverse = drop_duplicates(order[n_kept // 2 :], unit_vectors(features[0]), n_kept // 2)
    return mask[0].nonzero()[:, 0].tolist(), torch.cat([order[: n_kept // 2], diverse]).sort().values.tolist()


def cdpruner(repository: str, side: int, width: int, share: float) -> Pair:
    features, patches, text = torch.randn(1, side**2, width), torch.randn(1, side**2, 16), torch.randn(3, 16)
    n_kept = round(share * side**2)
    model = model_of(lambda *args, **kwargs: (features, patches, text), visual_token_num=n_kept)
    mask: Tensor = taken(repository, ARCHITECTURE, "encode_images")["encode_images"](model, None)[1]
    relevance = -(unit_vectors(patches[0]) @ unit_vectors(text).T).mean(1)
    tokens = VisualTokens(features[0], Layout.raster((1, side, side)))
    ours = CDPruner(relevance=lambda tokens: relevance, keep=n_kept).select(tokens)
    return mask[0].nonzero()[:, 0].tolist(), ours.kept.tolist()


def tome(repository: str, side: int, width: int, share: float) -> Pair:
    """Compare the weights with which every token becomes part of those that are left, in any order. Theirs includes a
    CLS token, which stays as it is."""
    names = "bipartite_soft_matching", "merge_wavg", "do_nothing"
    space = taken(repository, "tome/merge.py", *names, Callable=Callable, Tuple=tuple)
    keys, sizes = torch.randn(side**2 + 1, width), torch.randint(1, 4, (side**2 + 1, 1)).float()
    count = round(share * side**2)
    merge, _ = space["bipartite_soft_matching"](keys[None], count, class_token=True)
    weights = space["merge_wavg"](merge, torch.eye(side**2 + 1)[None], sizes[None])[0][0]
    kept, merged = merged_down(keys[1:], sizes[1:, 0], side**2 - count, 1)
    own = torch.eye(side**2)[kept]
    own[merged.targets] = 0
    own.index_put_((merged.targets, merged.sources), merged.weights)
    return sorted(weights[1:, 1:].round(decimals=5).tolist()), sorted(own.round(decimals=5).tolist())


def pixelprune(repository: str, side: int, width: int, threshold: float) -> Pair:
    """Compare on rectangles of one colour each, half of them with noise."""
    space = taken(
        repository, "pixelprune/methods/pred_2d.py", "_sim2d", "Pred2DSelector", BasePatchSelector=object, List=list
    )
    pixels = torch.zeros(side, side, width)
    for _ in range(side):
        (top, left), (height, wide) = torch.randint(side, (2,)).tolist(), torch.randint(1, side // 2, (2,)).tolist()
        pixels[top : top + height, left : left + wide] = torch.randint(8, (1,)) / 8
    pixels += 0.05 * torch.rand(side, side, width) * (torch.rand(side, side, 1) < 0.5)
    selector = object.__new__(space["Pred2DSelector"])
    vars(selector).update(method="max", threshold=threshold, anchored=True)
    theirs: Tensor = selector._select_2d_loco(pixels.flatten(0, 1), side, side, pixels.device)
    errors = prediction_errors(pixels[None].clone(), threshold).flatten()
    return theirs.tolist(), (errors > threshold).nonzero()[:, 0].tolist()


#: Each comparison with its budgets: shares that are kept or, of ToMe, merged; of PixelPrune, thresholds.
PEERS: dict[str, tuple[Callable[..., Pair], tuple[float, ...]]] = {
    "vispruner": (vispruner, (0.1, 0.25, 0.5)),
    "cdpruner": (cdpruner, (0.1, 0.25, 0.5)),
    "tome": (tome, (0.1, 0.25, 0.4)),
    "pixelprune": (pixelprune, (0.0, 0.02, 0.1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in PEERS:
        parser.add_argument(name, help="the authors' repository")
    options, table = parser.parse_args(), Table("strategy", "draws", "the same")
    for name, (compared, budgets) in PEERS.items():
        same = []
        for (side, width), budget, seed in product(SHAPES, budgets, range(DRAWS)):
            torch.manual_seed(seed)
            theirs, ours = compared(getattr(options, name), side, width, budget)
            same.append(theirs == ours)
        table.add_row(name, str(len(same)), f"{sum(same)} of {len(same)}")
    Console().print(table)


if __name__ == "__main__":
    main()
