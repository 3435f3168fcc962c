"""Fit the heads that read places, edges and points before stage two, since untrained heads would teach nonsense."""

from __future__ import annotations

import random
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.evals.dev.train.batches.pack import Batch
from tokenprune.evals.dev.train.losses import Trainee, grid_places
from tokenprune.evals.dev.train.run import Run
from tokenprune.evals.dev.train.scenes.assets import Assets
from tokenprune.evals.dev.train.scenes.draw import draw_scene

GRID = (16, 16)  # the only grid that version 1 knows; tokens of other grids learn to fit the same heads
SCENES = 80
RIDGE = 1e-3  # of the mean square of what a head reads


def fit_heads(run: Run, assets: Assets) -> None:
    """Fit the heads on newly drawn training scenes."""
    rng = random.Random(f"{run.args.seed} heads")
    fed = []
    for _ in range(SCENES // 8):
        scenes = [draw_scene(rng, assets, GRID, 6) for _ in range(8)]
        fed.append((run.encode(scenes, rng).float(), run.packer.pack(rng, scenes).to(run.device)))
    fit(run.trainee, fed)


@torch.no_grad()
def fit(trainee: Trainee, fed: Iterable[tuple[Float[Tensor, "b visual d"], Batch]]) -> None:
    """Fit each head by ridge regression of its targets on its inputs."""
    heads = trainee.place_head, trainee.edge_head, trainee.point_head
    read: dict[nn.Module, list[Tensor]] = {head: [] for head in heads}
    true: dict[nn.Module, list[Tensor]] = {head: [] for head in heads}
    hooks = [head.register_forward_pre_hook(lambda head, given: read[head].append(given[0])) for head in heads]
    try:
        for features, batch in fed:
            trainee(features, batch, aids=False)
            true[trainee.place_head].append(grid_places(batch.grid).expand(len(features), -1, -1))
            true[trainee.edge_head].append(batch.edges[batch.owner >= 0])
            pointing, compares = ~batch.points.isnan().any(-1), batch.compares()
            true[trainee.point_head] += [batch.points[pointing & ~compares], batch.points[pointing & compares]]
    finally:
        for hook in hooks:
            hook.remove()
    for head in heads:
        x, y = (torch.cat([part.flatten(0, -2) for part in parts[head]]).double() for parts in (read, true))
        mean_x, mean_y = x.mean(0), y.to(x.device).mean(0)
        x, y = x - mean_x, y.to(x.device) - mean_y
        ridge = RIDGE * len(x) * x.square().mean() * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        weight = torch.linalg.solve(x.T @ x + ridge, x.T @ y).T
        head.weight.copy_(weight)
        head.bias.copy_(mean_y - weight @ mean_x)
