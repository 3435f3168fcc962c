"""vLLM's tower run on only some of the patches."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.served.engine import needs_vllm
from torch import Tensor, nn

from tokenprune.errors import PruningError, UnsupportedError

pytestmark = needs_vllm
CONFIG: Any = SimpleNamespace(model_type="qwen2_vl", vision_config=SimpleNamespace(spatial_merge_size=2))
GRIDS = torch.tensor([[1, 4, 4], [2, 2, 4]])
TORCH_SDPA, FLASHINFER = (SimpleNamespace(name=name) for name in ("TORCH_SDPA", "FLASHINFER"))


class Layer(nn.Module):
    """Records its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, Any] = {}

    def forward(self, x: Tensor, cu_seqlens: Tensor, *, cos: Tensor, max_seqlen: Tensor | None = None) -> Tensor:
        self.given = {"x": x, "cu_seqlens": cu_seqlens, "cos": cos, "max_seqlen": max_seqlen}
        return x + 1


class Merger(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 4, x.shape[-1]).sum(1)


def items() -> list[Any]:
    """Return what is left of an image of 4 visual tokens, and of a video with two frames of 2."""
    from tokenprune.serving.vllm.processor.item import PrunedItem

    return [PrunedItem((4,), None, 0, (), (0, 3)), PrunedItem((2, 2), None, 0, (), (1, 2, 3))]


def test_layers_get_what_is_left() -> None:
    """Layers may get the ends of segments as positional arguments, and patches with a batch dimension of one."""
    from tokenprune.serving.vllm.worker.before_tower import PatchDropping

    first, second, merger = Layer(), Layer(), Merger()
    dropping = PatchDropping(CONFIG, [first, second], [merger], TORCH_SDPA)
    row = torch.arange(32.0)
    with dropping.encoding(GRIDS, items()):
        x, ends = row.view(-1, 1, 1), torch.tensor([0, 16, 24, 32])
        for layer in (first, second):
            x = layer(x, ends, cos=row[:, None], max_seqlen=torch.tensor(16))
        merged = merger(x)
        queries = dropping.whole(second.given["x"].view(1, -1, 1))
        real = dropping.real()
    left = torch.cat([row[:4], row[12:16], row[20:32]])
    for layer, before in ((first, left), (second, left + 1)):
        assert torch.equal(layer.given["x"], before.view(-1, 1, 1))
        assert layer.given["cu_seqlens"].tolist() == [0, 8, 12, 20]
        assert torch.equal(layer.given["cos"][:, 0], left)
        assert layer.given["max_seqlen"] == 8
    sums = [4 * 2 + sum(range(0, 4)), 0, 0, 4 * 2 + sum(range(12, 16)), 0]
    sums += [4 * 2 + sum(range(start, start + 4)) for start in (20, 24, 28)]
    assert merged[:, 0].tolist() == sums
    assert torch.equal(queries[0, :, 0], torch.where(torch.isin(row, left), row + 1, 0))
    assert [one[0].int().tolist() for one in real] == [
        [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1],
        [0, 0, 1, 1, 0, 0, 1, 1],
        [1] * 8,
    ]
    assert first(row, None, cos=row) is not None, "outside, nothing is dropped"
    assert torch.equal(first.given["x"], row)


def test_one_image_after_the_other() -> None:
    """Like PaddleOCR-VL's tower in vLLM 0.32."""
    from tokenprune.serving.vllm.worker.before_tower import PatchDropping

    layer, merger = Layer(), Merger()
    dropping = PatchDropping(CONFIG, [layer], [merger], TORCH_SDPA)
    row = torch.arange(32.0)
    given, merged = [], []
    with dropping.encoding(GRIDS, items()):
        for part in row.split(16):
            n = len(part)
            merged.append(merger(layer(part.view(1, -1, 1), torch.tensor([0, n]), cos=part[:, None])))
            given.append(layer.given["x"][0, :, 0])
        queries, real = dropping.whole(torch.cat(given).view(1, -1, 1)), dropping.real()
    left = torch.cat([row[:4], row[12:16], row[20:32]])
    assert torch.equal(torch.cat(given), left)
    assert torch.equal(queries[0, :, 0], torch.where(torch.isin(row, left), row, 0))
    assert [len(one) for one in merged] == [4, 4]
    assert [one.shape[1] for one in real] == [16, 8, 8]


def test_layers_that_are_not_called() -> None:
    """Otherwise the features would be those of a tower that has seen everything."""
    from tokenprune.serving.vllm.worker.before_tower import PatchDropping

    dropping = PatchDropping(CONFIG, [Layer()], [Merger()], TORCH_SDPA)
    with pytest.raises(PruningError, match="did not call the layers"), dropping.encoding(GRIDS, items()):
        pass


def test_a_kernel_that_is_told_lengths_in_another_way() -> None:
    from tokenprune.serving.vllm.worker.before_tower import PatchDropping

    with pytest.raises(UnsupportedError, match="--mm-encoder-attn-backend FLASHINFER"):
        PatchDropping(CONFIG, [Layer()], [Merger()], FLASHINFER)
