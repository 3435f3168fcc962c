"""GLM-5-Next and MiniMax M3: how language models that vLLM runs only on GPUs use position IDs and places in the cache.
Other tests leave those layers out."""

# pyright: reportMissingImports=false

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.served.cpu.glm5 import NAME
from helpers.served.engine import TOLERANCE, difference, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU
from helpers.served.marks import GLM_IMAGE, MINIMAX_IMAGE
from helpers.served.reference import Request
from helpers.served.stored import save
from torch import Tensor

from tokenprune.serving.vllm.architectures import ARCHITECTURES

pytestmark = [needs_vllm, pytest.mark.slow]


def test_original_position_ids_give_another_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison that does not notice wrong position IDs would be worthless."""
    save("glm5_next", tmp_path)
    monkeypatch.setitem(ARCHITECTURES, NAME, replace(ARCHITECTURES[NAME], reads_position_ids=True))
    requests = [Request(f"w1 w2 {GLM_IMAGE} w3 w4", ((1, 140, 112),))]
    (answer,) = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, NAME, FOPRU) as llm:
        (output,) = served(llm, requests)
    assert difference(output, answer) > 100 * TOLERANCE


def test_position_ids_are_places_in_the_cache() -> None:
    """In a short prompt, vLLM attends to all tokens by their places, which it counts up to a token's position ID."""
    from vllm.models.glm5next.common.sparse_indexer import _decode_topk_seq_lens, _fill_causal_indices

    kept, unpruned = torch.arange(5), torch.tensor([0, 1, 7, 30, 31])
    places = torch.empty(5, 64, dtype=torch.int32)
    _fill_causal_indices(places, kept)
    assert [[place for place in row if place >= 0] for row in places.tolist()] == [[*range(n)] for n in range(1, 6)]
    _fill_causal_indices(places, unpruned)
    assert int(places.max()) == 31  # the prompt has five
    lengths = _decode_topk_seq_lens(kept[4:], torch.tensor([1]), 1, 1, 1, requires_padding=False)
    assert lengths.tolist() == [5]


#: Keys per block, and blocks per query.
BLOCK, N_BLOCKS = 128, 2
#: Steps of a request whose first tokens are cached: one crosses into another block, and one decodes.
STEPS = ((500, 524), (524, 525))


def test_places_in_the_cache_are_counted_apart_from_position_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code that chooses blocks uses the places in vLLM's attention metadata."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionMetadataBuilder

    from tokenprune.serving.vllm.models.minimax_m3 import PrunedMiniMaxM3

    places: list[Tensor] = []
    ids: list[Tensor] = []
    build, step_ids = CPUAttentionMetadataBuilder.build, PrunedMiniMaxM3.step_ids

    def noting_places(self: Any, before: int, told: Any, *others: Any, **named: Any) -> Any:
        places.append(told.positions[: told.num_actual_tokens].clone())
        return build(self, before, told, *others, **named)

    def noting_ids(self: Any, positions: Tensor) -> Tensor:
        ids.append(step_ids(self, positions).clone())
        return ids[-1]

    monkeypatch.setattr(CPUAttentionMetadataBuilder, "build", noting_places)
    monkeypatch.setattr(PrunedMiniMaxM3, "step_ids", noting_ids)
    save("minimax_m3", tmp_path)
    with engine(tmp_path, "TokenPruneMiniMaxM3", FOPRU) as llm:
        places.clear()
        ids.clear()
        (output,) = served(llm, [Request(f"w1 w2 {MINIMAX_IMAGE} w3 w4", ((1, 140, 112),))])
    n_seen = len(output.prompt_token_ids) + 9  # all but the last token of the answer
    assert torch.cat(places).tolist() == [*range(n_seen)]
    assert int(torch.cat(ids)[-1]) == n_seen - 1 + 20 - 5  # 5 of 20 visual tokens are left


@torch.no_grad()
@pytest.mark.parametrize("kind", ["original", "compact"])
def test_blocks_of_a_pruned_prompt(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the same places, vLLM's indexer chooses the same blocks as transformers', whatever the position IDs."""
    from transformers.models.minimax_m3_vl import modeling_minimax_m3_vl as modeling
    from vllm.models.minimax_m3.common.ops import index_topk

    for kernel in (index_topk._topk_index_kernel, index_topk._topk_index_partial_kernel):
        monkeypatch.setattr(kernel.fn, "configs", kernel.fn.configs[-1:])  # no search on a GPU
    torch.manual_seed(0)
    settings: dict[str, Any] = {"hidden_size": 64, "head_dim": 32, "layer_types": ["minimax_m3_sparse"]}
    blocks: dict[str, Any] = {
        "index_n_heads": 2,
        "index_head_dim": 32,
        "index_block_size": BLOCK,
        "index_topk_blocks": N_BLOCKS,
    }
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    config: Any = transformers.MiniMaxM3VLTextConfig(num_hidden_layers=1, rope_parameters=rope, **settings, **blocks)
    indexer: Any = modeling.MiniMaxM3VLIndexer(config, 0)
    for parameter in indexer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    first, n = STEPS[0][0], STEPS[-1][1]
    places, hidden = torch.arange(n), torch.randn(n, 64)
    image = 20 + torch.randperm(4000)[:400].sort().values
    original = torch.cat([torch.arange(20), image, 4020 + torch.arange(n - 420)])
    rotation = modeling.MiniMaxM3VLRotaryEmbedding(config)(hidden, (original if kind == "original" else places)[None])
    wanted = indexer(hidden[None], rotation, None, places[None])[0, :, first:]
    assert len(wanted.flatten(0, 1).sort().values.unique(dim=0)) > 3  # queries choose different blocks
    found = chosen_by_vllm(indexer, rotation, hidden)
    assert torch.equal(found.sort().values, wanted.sort().values.to(found))


def chosen_by_vllm(indexer: Any, rotation: Any, hidden: Tensor) -> Tensor:
    """Return the blocks that each query of STEPS reads, (heads, tokens, blocks), from vLLM's kernels and pages.
    Projections, norms and rotation are transformers'."""
    from transformers.models.minimax_m3_vl.modeling_minimax_m3_vl import apply_rotary_pos_emb
    from vllm.models.minimax_m3.common.ops import index_topk

    queries, keys = (
        norm(projection(hidden).unflatten(-1, (-1, 32)))[None].transpose(1, 2)
        for norm, projection in ((indexer.q_norm, indexer.q_proj), (indexer.k_norm, indexer.k_proj))
    )
    queries, keys = (one[0].transpose(0, 1) for one in apply_rotary_pos_emb(queries, keys, *rotation))
    table = torch.tensor([[3, 1, 6, 2, 5]], dtype=torch.int32)
    pages = torch.full((8, BLOCK, 32), torch.nan)
    places = torch.arange(len(hidden))
    pages[table[0, places // BLOCK].long(), places % BLOCK] = keys[:, 0]
    parts = []
    for start, end in STEPS:
        where = places[start:end]
        own, ends = queries[where].contiguous(), torch.tensor([end], dtype=torch.int32)
        if len(where) > 1:
            starts, before = torch.tensor([0, end - start], dtype=torch.int32), torch.tensor([start], dtype=torch.int32)
            scores = index_topk.minimax_m3_index_score(own, pages, table, starts, ends, before, end - start, end, 2)
            parts.append(index_topk.minimax_m3_index_topk(scores, starts, before, end - start, N_BLOCKS, 0, 1))
        else:
            parts.append(index_topk.minimax_m3_index_decode(own, pages, table, ends, end, N_BLOCKS, 0, 1, 2, 1, 1))
    return torch.cat(parts, 1)
