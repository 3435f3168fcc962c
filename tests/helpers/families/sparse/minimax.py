"""MiniMax M3, whose sparse layers choose blocks of the cache, so it needs compact position IDs and no padding."""

from typing import Any

import transformers
from torch import Tensor

from helpers.families.base import DIFFER, IMAGE, VIDEO, decoder, tower
from helpers.families.common import CommonFamily
from helpers.families.qwen_vl import MERGE, QwenVL

BLOCK = 4  # slots


class MiniMaxM3(CommonFamily, QwenVL):
    """Blocks of 4 slots: a query attends to its own block and to the two best others."""

    class_name = "MiniMaxM3SparseForConditionalGeneration"
    marks_steps = True
    contract = "never seen"
    volatile = ()
    refused = 'compact IDs only: .*Write patch\\(model, ..., position_ids="compact"\\)'

    def __init__(self, name: str, n_blocks: int = 3) -> None:
        super().__init__(name)
        self.n_blocks = n_blocks
        self.cannot = {"padding": DIFFER}

    def config(self) -> Any:
        vision = tower(0, spatial_merge_size=MERGE, hidden_size=48)
        del vision["image_size"]
        text = decoder(
            num_hidden_layers=4,
            head_dim=8,
            rotary_dim=4,
            layer_types=["full_attention", "minimax_m3_sparse"] * 2,
            mlp_layer_types=["dense", "sparse"] * 2,
            dense_intermediate_size=48,
            shared_intermediate_size=24,
            num_local_experts=4,
            num_experts_per_tok=2,
            index_n_heads=2,
            index_head_dim=8,
            index_block_size=BLOCK,
            index_topk_blocks=self.n_blocks,
        )
        return transformers.MiniMaxM3VLConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            projector_hidden_size=32,
        )

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {}
