"""Statistics of the vision tower's attention against whole maps: registers, padding, shared patches, half precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tokenprune.tokens import Layout, VisionAttention, attention


def attention_of(n_tiles: int, n_patches: int, n_prefix: int) -> VisionAttention:
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(2, n_tiles, 2, n_patches + n_prefix, 4, generator=generator) * 2
    return VisionAttention(queries, keys, 0.5, n_prefix, Layout(((n_tiles, 1, n_patches),), n_tiles))


def maps(seen: VisionAttention) -> Tensor:
    """Return (tiles, tokens, tokens), averaged over heads."""
    return (seen.queries.float() @ seen.keys.float().transpose(-1, -2) * seen.scale).softmax(-1).mean(1)


@pytest.mark.parametrize("n_prefix", [1, 3])
def test_registers_are_left_out(n_prefix: int) -> None:
    """Only the first of the tokens before the patches is the CLS token."""
    seen = attention_of(2, 6, n_prefix)
    whole = maps(seen)
    torch.testing.assert_close(seen.cls_row(), whole[:, 0, n_prefix:].flatten())
    torch.testing.assert_close(seen.received(), whole[:, n_prefix:, n_prefix:].sum(1).flatten())
    torch.testing.assert_close(seen.cls_or_mean(), seen.cls_row())
    logits = (seen.queries[:, :, :1] @ seen.keys[:, :, n_prefix:].transpose(-1, -2))[:, :, 0] * seen.scale
    torch.testing.assert_close(seen.cls_logits(), logits.transpose(0, 1).flatten(1))
    rows, counted = torch.tensor([[1, 4], [0, 5]]), torch.tensor([[True, True], [True, False]])
    paid = torch.stack([whole[0, [n_prefix + 1, n_prefix + 4]].sum(0), whole[1, n_prefix]])[:, n_prefix:]
    torch.testing.assert_close(seen.received_from(rows, counted), paid)


def test_without_a_cls_token_it_is_the_mean_of_what_all_pay() -> None:
    seen = attention_of(1, 6, 0)
    torch.testing.assert_close(seen.cls_or_mean(), maps(seen)[0].mean(0))


def test_padding_neither_pays_nor_receives_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last three patches are padding, and rows are computed two at a time."""
    seen = attention_of(2, 8, 1)
    padded = replace(seen, real=(torch.arange(9) < 6).expand(2, -1))
    parts = {name: getattr(seen, name)[:, :, :6] for name in ("queries", "keys")}
    alone = replace(seen, layout=Layout(((2, 1, 5),), 2), **parts)
    expected = torch.cat([alone.received().view(2, 5), torch.zeros(2, 3)], 1).flatten()
    torch.testing.assert_close(padded.received(), expected)
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", 2 * 2 * 9)
    torch.testing.assert_close(replace(padded).received(), expected)


def test_what_a_visual_token_reads_of_each_patch_is_its_share_of_its_attention() -> None:
    seen = attention_of(1, 3, 0)
    shares = torch.tensor([[[1.0, 0.0, 0.0], [0.25, 0.5, 0.25]]])
    mixed = replace(seen, shares=shares, layout=Layout.raster((1, 1, 2)))
    first, second, third = maps(seen)[0].sum(0)
    torch.testing.assert_close(mixed.received(), torch.stack([first, first / 4 + second / 2 + third / 4]))


def test_half_precision_is_computed_in_float32() -> None:
    seen = attention_of(1, 40, 1)
    half = replace(seen, queries=seen.queries.bfloat16(), keys=seen.keys.bfloat16())
    same = replace(half, queries=half.queries.float(), keys=half.keys.float())
    for found, expected in (
        (half.received(), same.received()),
        (half.cls_row(), same.cls_row()),
        (half.cls_logits(), same.cls_logits()),
        (half.patch_keys(), same.patch_keys()),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)


def test_tiles_join_with_their_padding_and_shares_and_move_to_a_device() -> None:
    parts = [
        replace(attention_of(1, 3, 0), real=torch.tensor([[True, True, one]]), shares=torch.full((1, 2, 3), share))
        for one, share in ((True, 0.25), (False, 0.75))
    ]
    joined = VisionAttention.concat(parts, Layout(((2, 1, 2),), 2))
    assert joined.real is not None
    assert joined.real.tolist() == [[True, True, True], [True, True, False]]
    assert joined.shares is not None
    assert joined.shares[:, 0, 0].tolist() == [0.25, 0.75]
    assert (joined.queries.shape[0], joined.keys.shape[0], joined.layout.n_visual) == (2, 2, 4)
    moved = joined.to(torch.device("meta"))
    assert all(part is not None and part.is_meta for part in (moved.queries, moved.keys, moved.real, moved.shares))
