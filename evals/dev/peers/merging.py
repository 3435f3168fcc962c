"""Compare what PruMerge, VFlowOpt's first stage and BackgroundPruning keep, and the features that they merge into it,
with the authors' code on the same random tensors: three sizes, three budgets, 4 draws each.

    python evals/dev/peers/merging.py PRUMERGE VFLOWOPT BACKGROUNDPRUNING

Each argument is a clone of the authors' code at the commit named in evals/results/peers.md.
"""

import ast
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from tokenprune import BackgroundPruning, PruMerge
from tokenprune.evals.dev.peers.functions import source_of, taken
from tokenprune.evals.dev.peers.selection import SHAPES, Outcome, run
from tokenprune.strategies.shared.clusters import link_neighbours, quantile_of_links, threshold_links
from tokenprune.strategies.shared.importance import importance_map
from tokenprune.strategies.shared.recycling import recycle_by_cell
from tokenprune.tokens import Layout, VisionAttention, VisualTokens
from tokenprune.tokens.cells import grid_cells

ONEVISION = "src/LLaVA-OneVision/llava/model"
#: The side of a tile in LLaVA-OneVision, which VFlowOpt's code presupposes.
TILE = 27


def prumerge(repository: str, shape: tuple[int, int], share: float) -> Outcome:
    """Features are rows of the identity, so that their sums show which token has which weight. Theirs has one softmax
    over the whole width, so ours gets one head."""
    side, n = shape[0], shape[0] ** 2
    queries, keys = 2 * torch.randn(1, 1, n + 1, n), torch.randn(1, 1, n + 1, n)
    space = taken(
        repository, "llava/model/multimodal_encoder/clip_encoder.py",
        "token_prune_merge_advanced", "complement_idx", "hook_k", "hook_q",
        outputs={"desired_q": queries[0], "desired_k": keys[0]},
    )  # fmt: skip
    hooked = SimpleNamespace(register_forward_hook=lambda hook: SimpleNamespace(remove=lambda: None))
    layers = {23: SimpleNamespace(self_attn=SimpleNamespace(q_proj=hooked, k_proj=hooked))}

    class Tower(SimpleNamespace):
        def __call__(self, *args: Any, **settings: Any) -> Any:
            return SimpleNamespace(hidden_states=[torch.eye(n + 1)[None, :, 1:]])

    owner = SimpleNamespace(
        vision_tower=Tower(vision_model=SimpleNamespace(encoder=SimpleNamespace(layers=layers))),
        feature_select=lambda out: out.hidden_states[0][:, 1:],
        select_layer=0,
        device="cpu",
        dtype=torch.float32,
    )
    merge, pixels = space["token_prune_merge_advanced"], torch.zeros(1, 3, 2, 2)
    theirs: Tensor = merge(owner, pixels, if_adaptive=False, reduction_ratio=share)[0, :-1]  # the last sums up the rest
    theirs = theirs[theirs.argmax(1).argsort()]  # a kept token has weight 1, and the others attention
    layout = Layout.raster((1, side, side))
    statistics = {"vision_attention": VisionAttention(queries, keys, n**-0.5, 1, layout)}
    ours = PruMerge(keep=len(theirs)).select(VisualTokens(torch.eye(n), layout, statistics=statistics))
    assert ours.merged is not None
    far = (theirs - ours.merged.apply(torch.eye(n), ours.kept)).abs().max().item()
    return theirs.argmax(1).tolist(), ours.kept.tolist(), far


def canvas_after_thumbnail(values: Tensor, rows: int) -> Tensor:
    """Put the tiles after the first one together."""
    canvas = rearrange(values[1:], "(r c) (h w) -> (r h c w)", r=rows, h=TILE)
    return torch.cat([values[0], canvas])


def vflowopt(repository: str, shape: tuple[int, int], settings: tuple[float, float, float]) -> Outcome:
    """Compare on a thumbnail and tiles, without newline tokens. Theirs merges more tokens than there are cells, so ours
    gets its number."""
    (rows, columns), (threshold, cell, first), width = shape, settings, 64
    queries, keys = torch.randn(2, 1 + rows * columns, 4, TILE**2, 16)
    anchors = torch.rand(1 + rows * columns, 1, TILE**2) < 4 / TILE**2  # they get most of the attention
    anchors[..., 0] = True
    queries[..., 0], keys[..., 0] = 2, 12 * anchors
    tree = ast.parse(source_of(repository, f"{ONEVISION}/multimodal_encoder/siglip_encoder.py"))
    ranks = next(n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "perform_self_selection")
    tree = ast.parse(source_of(repository, f"{ONEVISION}/language_model/llava_qwen_training_free.py"))
    merges = next(n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.body[0]).startswith("a = "))
    space: dict[str, Any] = {"torch": torch, "F": nn.functional, "json": json, "os": SimpleNamespace(environ={})}
    space |= {
        "attn_weights": (queries @ keys.mT / 4).softmax(-1),
        "combined_attn_maps": [],
        "perform_self_selection": 1,
    }
    space |= {"entropies": torch.zeros(1 + rows * columns, 1), "alpha_v": 0, "t": threshold}
    exec(compile(ast.Module([ranks], []), "siglip_encoder.py", "exec"), space)
    maps = canvas_after_thumbnail(torch.stack(space["combined_attn_maps"]), rows)
    features = torch.randn(len(maps), width)
    space |= {"image_attn_map": maps, "image_feature": features.clone(), "image_token_length": len(maps)}
    space |= {"illava_config": {"illava_vit_m": cell, "enable_illava_vit": True}, "local_w": columns * TILE}
    space |= {"reduce_tokens": round(len(maps) * (1 - first))}
    exec(compile(ast.Module([merges], []), "llava_qwen_training_free.py", "exec"), space)
    theirs: Tensor = space["to_keep_mask"].nonzero()[:, 0]
    layout = Layout(
        ((1, TILE, TILE), (1, rows * TILE, columns * TILE)),
        1 + rows * columns,
        partial(canvas_after_thumbnail, rows=rows),
    )
    scores = importance_map(VisionAttention(queries, keys, 0.25, 0, layout), threshold, as_released=True)
    ours = recycle_by_cell(scores, *grid_cells(layout, cell), len(theirs))
    assert ours.merged is not None
    far = (space["image_feature"] - ours.merged.apply(features, ours.kept)).abs().max().item()
    return theirs.tolist(), ours.kept.tolist(), far


def background(repository: str, shape: tuple[int, int], share: float) -> Outcome:
    """Theirs gets our links as its learned affinity, and ours its projections, as one head. Theirs does not say which
    tokens it keeps."""
    (side, width), n = shape, shape[0] ** 2
    names = "clustering", "build_token_affinity", "cluster_tokens_by_parent", "compute_cluster_centers_batched"
    space = taken(repository, "longva/longva/model/regproxy.py", *names)
    layout, states = Layout.raster((1, side, side)), torch.randn(1, n + 1, width)
    parents, cosines = link_neighbours(states[0, 1:], layout)
    least, none = quantile_of_links(cosines, 0.1), torch.zeros(n, dtype=torch.long)
    step = threshold_links(parents, cosines, least, torch.tensor([n]), none) - torch.arange(n)
    down = (step / side).round().long()
    links = nn.functional.one_hot((down + 1) * 3 + step - down * side + 1, 9).float().view(1, side, side, 9)
    query, value = nn.Linear(width, width), nn.Linear(width, width)
    n_kept = round(share * n)
    with torch.no_grad():
        theirs: Tensor = space["clustering"](
            SimpleNamespace(forward=lambda grid: links), states, query, value, 12, None, side, side, n_kept
        )[0]
        heads = query(states)[None], value(states)[None]
    attention = VisionAttention(*heads, width**-0.5, 1, layout)
    tokens = VisualTokens(states[0, 1:], layout, statistics={"vision_attention": attention})
    ours = BackgroundPruning(keep=n_kept).select(tokens)
    assert ours.merged is not None
    far = (theirs - ours.merged.apply(tokens.features, ours.kept)).abs().amax(1)
    return [True] * n_kept, (far < 1e-4).tolist(), far.max().item()


if __name__ == "__main__":
    run(
        __doc__,
        {
            "prumerge": (prumerge, SHAPES, (0.05, 0.125, 0.25)),
            "vflowopt": (
                vflowopt,
                ((1, 1), (1, 2), (2, 2)),
                # The released threshold, side of a cell and share R1 for 10, 25 and 50 %.
                ((39.265, 17.387, 0.11662), (34.76, 15.581, 0.2651), (28.683, 11.757, 0.72332)),
            ),
            "backgroundpruning": (background, SHAPES, (0.05, 0.1, 0.15)),
        },
    )
