"""Qwen4-Exp's sparse attention reads the same keys in vLLM as in transformers if position IDs have gaps. The tests'
engines have no index, because vLLM's attention with one needs a GPU."""

# pyright: reportMissingImports=false

from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from helpers.served.engine import needs_vllm
from torch import Tensor

pytestmark = needs_vllm

#: Keys per block, and keys of blocks that a query reads.
BLOCK, BUDGET = 4, 8
#: Steps of a request, which end within blocks.
STEPS = ((0, 7), (7, 20), (20, 21), (21, 34))


class OnGpu(Tensor):
    """A tensor that claims to be on a GPU: Triton's interpreter takes any tensor."""

    is_cuda = True


def indexer() -> tuple[Any, Any]:
    """Return transformers' indexer with random weights, and its rotary embedding."""
    from transformers import Qwen4ExpTextConfig
    from transformers.models.qwen4_exp import modeling_qwen4_exp as modeling

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    settings: dict[str, Any] = {"n_heads": 2, "kv_heads": 1, "head_dim": 32, "budget": BUDGET, "compress_ratio": BLOCK}
    kinds: dict[str, Any] = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "indexed_attention"]}
    config: Any = Qwen4ExpTextConfig(
        hidden_size=64, head_dim=32, rope_parameters=rope, **kinds, **{f"indexer_{k}": v for k, v in settings.items()}
    )
    made = modeling.Qwen4ExpTextQSAIndexer(config, 1)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made, modeling.Qwen4ExpTextRotaryEmbedding(config)


def pruned_ids() -> Tensor:
    """Return position IDs (3, tokens) of text, of what is left of an image, and of text."""
    rows, columns = torch.tensor([0, 0, 3, 3, 3, 9, 9, 14, 14, 14]), torch.tensor([2, 11, 0, 1, 13, 5, 6, 0, 8, 12])
    image = 5 + torch.stack([torch.zeros_like(rows), rows, columns])
    return torch.cat([torch.arange(5).expand(3, -1), image, torch.arange(20, 39).expand(3, -1)], 1)


def selected_by_transformers(indexer: Any, rotary: Any, hidden: Tensor, ids: Tensor) -> Tensor:
    """Return which keys each query reads, (tokens, tokens)."""
    causal = torch.ones(len(hidden), len(hidden), dtype=torch.bool).tril()[None, None]
    return indexer(hidden[None], rotary(hidden[None], ids[:, None]), causal, None)[0, 0]


def selected_by_vllm(indexer: Any, rotary: Any, hidden: Tensor, ids: Tensor) -> Tensor:
    """Return the same from vLLM's caches and kernels, in several steps. Projections, norms, rotation and scores are
    transformers'."""
    from transformers.models.qwen4_exp.modeling_qwen4_exp import apply_rotary_pos_emb
    from vllm.models.qwen4_exp import common
    from vllm.models.qwen4_exp.nvidia.ops.qsa import qsa_compress_groups_with_ratio, qsa_store_cache_rows
    from vllm.models.qwen4_exp.nvidia.ops.qsa_indexer import expand_qsa_block_indices

    name = "qsa_cache" if find_spec(f"{common.__name__}.qsa_cache") else "qsa_indexer"  # up to vLLM 0.33
    side: Any = import_module(f"{common.__name__}.{name}")

    def rotated(heads: Tensor, places: Tensor) -> Tensor:
        return apply_rotary_pos_emb(heads[None], None, *rotary(heads, places[:, None]), unsqueeze_dim=2)[0]

    keys_seen, ids_seen = torch.zeros(2, BLOCK, 1, 32), torch.zeros(2, BLOCK, 1, 3, dtype=torch.long)
    blocks, pages = torch.zeros(8, 2, 1, 32), torch.tensor([[3, 1, 6, 2, 5]], dtype=torch.int32)
    found = torch.zeros(len(hidden), len(hidden), dtype=torch.bool)
    for start, end in STEPS:
        n, starts = end - start, torch.tensor([0, end - start], dtype=torch.int32)

        def described(table: Tensor, n: int = n, starts: Tensor = starts, end: int = end, **sizes: int) -> Any:
            step = SimpleNamespace(
                num_actual_tokens=n,
                query_start_loc=starts,
                query_start_loc_cpu=starts,
                seq_lens=torch.tensor([end], dtype=torch.int32),
                slot_mapping=torch.arange(n),
                block_table_tensor=table,
                token_to_req_indices=torch.zeros_like,
            )
            kinds = (torch.int32, torch.long, torch.int32, torch.long)
            return side._build_qsa_metadata_torch(step, *(torch.zeros(n, dtype=kind) for kind in kinds), **sizes)

        ring = torch.tensor([[1]], dtype=torch.int32)
        *_, ring_slots = described(ring, storage_block_size=BLOCK, compress_ratio=1, circular_buffer_size=BLOCK)
        request, places, visible, slots = described(pages, storage_block_size=2, compress_ratio=BLOCK)
        queries, keys = indexer.index_qk_proj(hidden[start:end]).split([64, 32], -1)
        rows, own = side.canonical_qsa_rope_positions(ids[:, start:end]), keys[:, None].as_subclass(OnGpu)
        pooled, first = qsa_compress_groups_with_ratio(
            own, rows, keys_seen, ring, request, starts, places, slots, BLOCK, ids_seen
        )
        compressed = rotated(indexer.k_layernorm(pooled.as_subclass(Tensor)), first.as_subclass(Tensor).T)
        for cache, of_cache, ones in (
            (blocks, slots, compressed),
            (keys_seen, ring_slots, keys[:, None]),
            (ids_seen, ring_slots, rows),
        ):
            qsa_store_cache_rows(cache.as_subclass(OnGpu), of_cache, ones)
        heads = rotated(indexer.q_layernorm(queries.unflatten(-1, (2, 32))), ids[:, start:end])
        scores = torch.einsum("qhd,kd->qhk", heads, blocks[pages[0]].reshape(-1, 32)).relu().sum(1)
        hidden_blocks = torch.arange(scores.shape[1]) >= visible[:, None]
        best = scores.masked_fill(hidden_blocks, -1).topk(BUDGET // BLOCK).indices.int()
        read = torch.empty(n, BUDGET + BLOCK, dtype=torch.int32)  # the last column counts the others
        expand_qsa_block_indices(best, places, visible, BLOCK, BUDGET, read)
        for query, row in enumerate(read.tolist(), start):
            found[query, row[: row[-1]]] = True
    return found


@torch.no_grad()
def test_keys_of_a_pruned_prompt() -> None:
    torch.manual_seed(0)
    made, rotary = indexer()
    ids = pruned_ids()
    hidden = torch.randn(ids.shape[1], 64)
    wanted = selected_by_transformers(made, rotary, hidden, ids)
    assert torch.equal(selected_by_vllm(made, rotary, hidden, ids), wanted)
    compact = torch.arange(ids.shape[1]).expand(3, -1)
    others = selected_by_transformers(made, rotary, hidden, compact)
    assert not torch.equal(others, wanted)
    assert torch.equal(selected_by_vllm(made, rotary, hidden, compact), others)
