"""Qwen4-Exp: layers with a state, sparse layers that pool keys in blocks, and embeddings of n-grams of token IDs."""

from typing import Any

from transformers import Qwen4ExpConfig

from helpers.families.base import EOS, decoder
from helpers.families.packed.mrope import MRope
from helpers.families.qwen_vl import Qwen3VL


class Qwen4Exp(MRope, Qwen3VL):
    """Each query of a sparse layer reads at most 4 blocks of 4 keys, and the incomplete last block."""

    class_name = "Qwen4ExpForConditionalGeneration"
    contract = "never seen"

    def config(self) -> Any:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
        text: Any = decoder(
            rope_parameters={**rope, "partial_rotary_factor": 0.25},
            head_dim=32,
            layer_types=["linear_attention", "indexed_attention"],
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=24,
            hc_count=2,
            hc_lowrank=8,
            ple_layer_ids=[1],
            heads_per_ngram=2,
            ngram_vocab_size_base=50,
            split_ngram_parts=1,
            indexer_n_heads=2,
            indexer_kv_heads=1,
            indexer_head_dim=8,
            indexer_budget=16,
            indexer_compress_ratio=4,
        )
        del text["intermediate_size"]
        assert text["eos_token_id"] == EOS  # n-grams do not cross it
        vision = self.vision(out_hidden_size=32, num_position_embeddings=64)
        return Qwen4ExpConfig(vision_config=vision, text_config=text, **self.tokens())
