"""Hierarchical merging of multi-vector embeddings: Light-ColPali, Light-ColQwen2 (https://arxiv.org/abs/2506.04997)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tokenprune.errors import PruningError
from tokenprune.selection.precision import without_autocast


def merge_clusters(embeddings: Float[Tensor, "n width"], factor: int) -> Float[Tensor, "clusters width"]:
    """Merge `n` embeddings of unit length into `n // factor`: the mean of each cluster, normalised to unit length, in
    the order of the clusters' first members. Gradients flow through the means.

    Ties in the tree, such as between the patches of a blank page, give fewer clusters. Raises PruningError for fewer
    embeddings than `factor`, and for embeddings that are not finite.
    """
    n = len(embeddings)
    if factor > n:
        raise PruningError(
            f"factor={factor} would leave no embedding for a page of {n} patch embeddings. Use a factor of at most {n}."
        )
    if not bool(embeddings.isfinite().all()):
        raise PruningError("the page's embeddings have NaN or infinite values. Load the model in another dtype.")
    labels = clusters_of(embeddings, n // factor)
    means = embeddings.new_zeros(int(labels.max()) + 1, embeddings.shape[1], dtype=torch.float32)
    # The sum has the direction of the mean.
    return normalize(means.index_add(0, labels, embeddings.float()), dim=-1).to(embeddings.dtype)


def clusters_of(embeddings: Float[Tensor, "n width"], n_clusters: int) -> Int[Tensor, " n"]:
    """The cluster of each embedding: at most `n_clusters`, numbered in order of first appearance.

    Ward's method with the rows of D = 1 - E E^T as observations, as in the paper's code: two embeddings are close if
    their similarities to all others are alike. Runs in float32 on the CPU.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    unit = embeddings.detach().float().cpu()
    with without_autocast(unit.device):
        rows = 1 - unit @ unit.T
    tree = linkage(pdist(rows.numpy()), method="ward")
    labels = fcluster(tree, n_clusters, criterion="maxclust").tolist()
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return torch.tensor([numbers[label] for label in labels], device=embeddings.device)
