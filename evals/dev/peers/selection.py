"""Compare what VisPruner, CDPruner, ToMe, PixelPrune, DivPrune and LateStep keep, or merge in one step, with the
authors' code on the same random tensors: three sizes, three budgets or thresholds, 4 draws each.

    python evals/dev/peers/selection.py VISPRUNER CDPRUNER TOME PIXELPRUNE DIVPRUNE LATESTEP

Each argument is a clone of the authors' code at the commit named in evals/results/peers.md.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tokenprune import CDPruner, DivPrune
from tokenprune.engine.denoising.canvas import canvas_attention
from tokenprune.evals.dev.peers.functions import taken
from tokenprune.strategies.in_tower.tome import merged_down
from tokenprune.strategies.pre_llm.divprune import most_diverse
from tokenprune.strategies.pre_llm.vispruner import drop_duplicates
from tokenprune.strategies.pre_tower.pixelprune import prediction_errors
from tokenprune.strategies.shared.similarity import unit_vectors
from tokenprune.tokens import Layout, VisualTokens

#: Rows and columns, and width.
SHAPES = (16, 256), (24, 640), (32, 1024)
DRAWS = 4
ARCHITECTURE = "llava/model/llava_arch.py"

#: What theirs and ours keep, or how they weight tokens, and the largest difference of a merged feature.
Outcome = tuple[Sequence[Any], Sequence[Any], float]


def model_of(tower: Any, **settings: Any) -> SimpleNamespace:
    """Return what a LLaVA's `encode_images` reads of it, with a projector that changes nothing."""
    core = SimpleNamespace(get_vision_tower=lambda: tower, mm_projector=lambda features: features)
    return SimpleNamespace(get_model=lambda: core, **settings)


def vispruner(repository: str, shape: tuple[int, int], share: float) -> Outcome:
    side, width = shape
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
    return mask[0].nonzero()[:, 0].tolist(), torch.cat([order[: n_kept // 2], diverse]).sort().values.tolist(), 0.0


def cdpruner(repository: str, shape: tuple[int, int], share: float) -> Outcome:
    side, width = shape
    features, patches, text = torch.randn(1, side**2, width), torch.randn(1, side**2, 16), torch.randn(3, 16)
    n_kept = round(share * side**2)
    model = model_of(lambda *args, **kwargs: (features, patches, text), visual_token_num=n_kept)
    mask: Tensor = taken(repository, ARCHITECTURE, "encode_images")["encode_images"](model, None)[1]
    relevance = -(unit_vectors(patches[0]) @ unit_vectors(text).T).mean(1)
    tokens = VisualTokens(features[0], Layout.raster((1, side, side)))
    ours = CDPruner(relevance=lambda tokens: relevance, keep=n_kept).select(tokens)
    return mask[0].nonzero()[:, 0].tolist(), ours.kept.tolist(), 0.0


def tome(repository: str, shape: tuple[int, int], share: float) -> Outcome:
    """Compare the weights with which every token becomes part of those that are left, in any order. Theirs includes a
    CLS token, which stays as it is."""
    (side, width), names = shape, ("bipartite_soft_matching", "merge_wavg", "do_nothing")
    space = taken(repository, "tome/merge.py", *names, Callable=Callable, Tuple=tuple)
    keys, sizes = torch.randn(side**2 + 1, width), torch.randint(1, 4, (side**2 + 1, 1)).float()
    count = round(share * side**2)
    merge, _ = space["bipartite_soft_matching"](keys[None], count, class_token=True)
    weights = space["merge_wavg"](merge, torch.eye(side**2 + 1)[None], sizes[None])[0][0]
    kept, merged = merged_down(keys[1:], sizes[1:, 0], side**2 - count, 1)
    own = torch.eye(side**2)[kept]
    own[merged.targets] = 0
    own.index_put_((merged.targets, merged.sources), merged.weights)
    return sorted(weights[1:, 1:].round(decimals=5).tolist()), sorted(own.round(decimals=5).tolist()), 0.0


def pixelprune(repository: str, shape: tuple[int, int], threshold: float) -> Outcome:
    """Compare on rectangles of one colour each, half of them with noise."""
    side, width = shape
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
    return theirs.tolist(), (errors > threshold).nonzero()[:, 0].tolist(), 0.0


def divprune(repository: str, shape: tuple[int, int], share: float) -> Outcome:
    """Compare in the order of choice, with the budget that each gets from the keep ratio."""
    (side, width), path = shape, "LLaVA/llava/model/llava_arch.py"
    space, features = taken(repository, path, "pairwise_cosine_similarity", "DivPrune"), torch.randn(side**2, width)
    owner = SimpleNamespace(pairwise_cosine_similarity=lambda matrix: space["pairwise_cosine_similarity"](None, matrix))
    theirs: Tensor = space["DivPrune"](owner, features, side**2, threshold_ratio=share)[0]
    n_kept = DivPrune(keep_ratio=share).budget(side**2)
    return theirs.tolist(), most_diverse(unit_vectors(features), n_kept).tolist(), 0.0


def latestep(repository: str, shape: tuple[int, int], share: float) -> Outcome:
    """Compare with the ranking that the study's FastV reads in one step, for a single head and with the canvas alone as
    queries: theirs averages heads before the softmax, and sums over the prompt's queries too."""
    side, width = shape
    path = "LLaDA-V/eval/llava_fastv/model/language_model/modeling_llada.py"
    attend = taken(repository, path, "scaled_dot_product_attention")["scaled_dot_product_attention"]
    before, canvas, total = 5, 32, 5 + side**2 + 20 + 32
    queries, keys, values = torch.randn(3, 1, 1, total, width)
    theirs = attend(queries[:, :, -canvas:], keys, values)[1].sum(1)
    ours = canvas_attention(queries[:, :, -canvas:] * width**-0.5, keys, None)
    kept = (image[0, before : before + side**2].topk(round(share * side**2)).indices for image in (theirs, ours))
    first, second = (index.sort().values.tolist() for index in kept)
    return first, second, 0.0


def run(about: str | None, peers: Mapping[str, tuple[Callable[..., Outcome], Sequence[Any], Sequence[Any]]]) -> None:
    """Print how often each comparison finds the same, over its shapes and budgets, which it gets after the path of a
    repository from the command line."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in peers:
        parser.add_argument(name, help="the authors' repository")
    options, table = parser.parse_args(), Table("strategy", "draws", "the same", "largest difference")
    for name, (compared, shapes, budgets) in peers.items():
        same, far = [], []
        for shape, budget, seed in product(shapes, budgets, range(DRAWS)):
            torch.manual_seed(seed)
            theirs, ours, difference = compared(getattr(options, name), shape, budget)
            same.append(theirs == ours)
            far.append(difference)
        table.add_row(name, str(len(same)), f"{sum(same)} of {len(same)}", f"{torch.tensor(far).max():.1e}")
    Console().print(table)


if __name__ == "__main__":
    kept = (0.1, 0.25, 0.5)
    run(
        __doc__,
        {
            "vispruner": (vispruner, SHAPES, kept),
            "cdpruner": (cdpruner, SHAPES, kept),
            "tome": (tome, SHAPES, (0.1, 0.25, 0.4)),  # merged
            "pixelprune": (pixelprune, SHAPES, (0.0, 0.02, 0.1)),  # thresholds
            "divprune": (divprune, SHAPES, kept),
            "latestep": (latestep, SHAPES, kept),
        },
    )
