"""Models with a config for which transformers has no class, such as InternVL in its authors' format, and
Qianfan-OCR."""

import json
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from transformers import MiniMaxM3VLConfig

from tokenprune import FoPru, PixelPrune
from tokenprune.errors import UnsupportedError
from tokenprune.sequence.position_ids import PositionIds
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.hf_overrides import overrides
from tokenprune.serving.vllm.settings import Settings

#: As in InternVL 2.5 and 3.
DYNAMIC = {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
#: As in InternVL 2 with Phi-3, whose heads are 96 wide.
SU = {"rope_scaling": {"type": "su", "long_factor": [2.0] * 48, "short_factor": [1.0] * 48}}


def config(text_type: str = "qwen3", text: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a config.json like published ones."""
    return {
        "model_type": "internvl_chat",
        "architectures": ["InternVLChatModel"],
        "vision_config": {"model_type": "intern_vit_6b", "num_hidden_layers": 24},
        "llm_config": {"model_type": text_type, "num_hidden_layers": 28, **(text or {})},
        "select_layer": -1,
        "ps_version": "v2",
        **changes,
    }


def written(config: dict[str, Any], layer: int | None = None, position_ids: PositionIds = "original") -> dict[str, Any]:
    return overrides(config, Settings(FoPru(layer=layer), position_ids))


def test_overrides() -> None:
    found = {"architectures": ["TokenPruneInternVLChat"], "tokenprune": {"strategy": "fopru", "keep_ratio": 0.25}}
    assert written(config()) == found
    assert written(config("internlm2", DYNAMIC)) == found  # also for the authors' own language model


#: Excerpts of published config.json files, the last layer of the vision tower that strategies can read, and other
#: layers that are refused, and why.
PUBLISHED: dict[str, Any] = json.loads(Path(__file__).with_name("published.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs(name: str) -> None:
    ours = f"TokenPrune{name.split()[0]}"
    config, last = PUBLISHED[name]["config"], PUBLISHED[name]["last_layer"]
    for layer in (last, None):
        assert written(config, layer=layer)["architectures"] == [ours]
    refused = {str(last + 1): f"is not in the vision tower: write 0 to {last}", **PUBLISHED[name]["refused"]}
    for layer, reason in refused.items():
        with pytest.raises(UnsupportedError, match=f"layer={layer} .*{reason}"):
            written(config, layer=int(layer))
    with nullcontext() if ARCHITECTURES[ours].drops_patches else pytest.raises(UnsupportedError, match="PixelPrune"):
        overrides(config, Settings(PixelPrune()))


@pytest.mark.parametrize(
    ("name", "part"), [("DotsOCR", "vision_config"), ("Ovis2_6", "vit_config"), ("Molmo2", "vit_config")]
)
def test_a_missing_tower(name: str, part: str) -> None:
    """As in configs that transformers writes, under other names."""
    config = {other: content for other, content in PUBLISHED[name]["config"].items() if other != part}
    with pytest.raises(UnsupportedError, match=f"type '{config['model_type']}' has no '{part}'"):
        written(config)


def test_a_rotary_embedding_of_a_flat_config() -> None:
    with pytest.raises(UnsupportedError, match="type 'longrope'"):
        written({**PUBLISHED["DotsOCR"]["config"], "rope_scaling": {"rope_type": "longrope"}})


def test_a_config_as_transformers_writes_it() -> None:
    """As for MiniMax M3, in which vLLM would miss the published settings of blocks and experts."""
    blocks = {"sparse_attention_freq": [0, 1], "sparse_topk_blocks": 16, "sparse_block_size": 128}
    text = {"model_type": "of_its_own", "num_hidden_layers": 2, "hidden_act": "swigluoai", "moe_layer_freq": [0, 1]}
    merging = {"img_token_compression_config": {"spatial_merge_size": 2, "temporal_patch_size": 2}}
    minimax = {
        "model_type": "minimax_m3_vl",
        "architectures": ["MiniMaxM3SparseForConditionalGeneration"],
        "text_config": {**text, "sparse_attention_config": blocks},
        "vision_config": {"model_type": "clip_vision_model", "num_hidden_layers": 32, **merging},
        "vision_feature_select_strategy": "full",
    }
    assert written(minimax, layer=31)["architectures"] == ["TokenPruneMiniMaxM3"]
    with pytest.raises(UnsupportedError, match="layer=32 is not in the vision tower: write 0 to 31"):
        written(minimax, layer=32)
    saved = MiniMaxM3VLConfig(**deepcopy(minimax)).to_dict()
    with pytest.raises(UnsupportedError, match=r"as transformers writes it, and vLLM reads .* such as MiniMaxAI/Mini"):
        written(saved)


def test_the_rotary_embedding_of_phi_3() -> None:
    text = {**SU, "max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "hidden_size": 3072}
    with pytest.raises(UnsupportedError, match=r"type 'longrope': .* Write \"position_ids\": \"compact\""):
        written(config("phi3", text))
    assert written(config("phi3", text), position_ids="compact")["architectures"] == ["TokenPruneInternVLChat"]


def test_layers_of_the_tower_that_vllm_builds() -> None:
    written(config(select_layer=-4), layer=20)
    with pytest.raises(UnsupportedError, match="layer=21 of this vision tower is not built by vLLM"):
        written(config(select_layer=-4), layer=21)


def test_visual_tokens_in_columns_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"ps_version='v1': only \"v2\" puts the visual tokens of a tile in row"):
        written(config(ps_version="v1"))


@pytest.mark.parametrize("part", ["vision_config", "llm_config"])
def test_a_part_that_is_missing(part: str) -> None:
    with pytest.raises(UnsupportedError, match=f"config.json of a model of type 'internvl_chat' has no '{part}'"):
        written({name: value for name, value in config().items() if name != part})


@pytest.mark.parametrize(
    "part", [{"model_type": "newer_than_transformers"}, {"model_type": "llama", "hidden_size": "a"}]
)
def test_a_config_that_transformers_cannot_read(part: dict[str, Any]) -> None:
    """For example with a language model of a later release."""
    with pytest.raises(
        UnsupportedError, match=r"cannot read the config\.json of this 'mistral3' model, .+Error: .+ a new"
    ):
        written({"model_type": "mistral3", "text_config": part})
