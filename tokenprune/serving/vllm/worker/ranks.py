"""Images divided among tensor parallel ranks for encoding (`--mm-encoder-tp-mode data`)."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_gather
from vllm.model_executor.models.vision import get_load_balance_assignment


def of_all_images(
    local: Float[Tensor, "heads local width"], sizes: Sequence[int]
) -> Float[Tensor, "heads patches width"]:
    """The states of the patches of all images in order, given those of this rank's images.

    sizes: how many patches each image has. vLLM balances the ranks by them, and gives a rank its largest image first.
    """
    order, counts, totals = get_load_balance_assignment(list(sizes), get_tensor_model_parallel_world_size())
    padded = pad(local, (0, 0, 0, max(totals) - local.shape[1])).contiguous()
    by_rank = tensor_model_parallel_all_gather(padded, dim=1).split(max(totals), 1)
    images = dict[int, Tensor]()
    for own, (start, end) in zip(by_rank, pairwise([0, *accumulate(counts)]), strict=True):
        mine = order[start:end]
        n_patches = [sizes[image] for image in mine]
        images.update(zip(mine, own[:, : sum(n_patches)].split(n_patches, 1), strict=True))
    return torch.cat([images[image] for image in range(len(sizes))], 1)
