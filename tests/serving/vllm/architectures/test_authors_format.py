"""Models with a config for which transformers has no class, such as InternVL in its authors' format, and
Qianfan-OCR."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from transformers import MiniMaxM3VLConfig

from tokenprune import FoPru, PixelPrune
from tokenprune.errors import UnsupportedError
from tokenprune.sequence.position_ids import PositionIds
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


def test_a_config_that_describes_the_language_model_itself() -> None:
    """As in dots.ocr, whose Qwen2 has a window that it does not use."""
    text = {"num_hidden_layers": 28, "hidden_size": 1536, "sliding_window": 131072, "use_sliding_window": False}
    names = {"model_type": "dots_ocr", "architectures": ["DotsOCRForCausalLM"]}
    dots = {**names, **text, "rope_scaling": None, "vision_config": {"num_hidden_layers": 42, "embed_dim": 1536}}
    assert written(dots, layer=41)["architectures"] == ["TokenPruneDotsOCR"]
    with pytest.raises(UnsupportedError, match="layer=42 is not in the vision tower: write 0 to 41"):
        written(dots, layer=42)
    with pytest.raises(UnsupportedError, match="type 'longrope'"):
        written({**dots, "rope_scaling": {"rope_type": "longrope"}})
    with pytest.raises(UnsupportedError, match=r"type 'dots_ocr' has no 'vision_config'"):
        written({**names, **text})


@pytest.mark.parametrize("version", ["3", "31"])
def test_layers_with_a_state_and_other_names_of_a_tower(version: str) -> None:
    """As in Kimi K3 and K3.1."""
    layers = {"kda_layers": [1, 2, 3], "full_attn_layers": [4], "num_heads": 96, "head_dim": 128}
    text = {"num_hidden_layers": 4, "hidden_act": "situ", "attn_res_block_size": 12, "mla_use_nope": True}
    kimi = {
        "model_type": f"kimi_k{version}",
        "architectures": [f"KimiK{version}ForConditionalGeneration"],
        "vision_config": {"vt_num_hidden_layers": 27, "vt_num_attention_heads": 12, "qkv_hidden_size": 1536},
        "text_config": {"model_type": "kimi_linear", "num_experts": 896, "linear_attn_config": layers, **text},
    }
    assert written(kimi, layer=26)["architectures"] == [f"TokenPruneKimiK{version}"]
    with pytest.raises(UnsupportedError, match="layer=27 is not in the vision tower: write 0 to 26"):
        written(kimi, layer=27)


@pytest.mark.parametrize("kind", ["Keye", "KeyeVL1_5"])
def test_a_flat_config_of_qwen3(kind: str) -> None:
    """Of Keye-VL, in which the tower's part has a name of its own."""
    text = {"num_hidden_layers": 36, "hidden_size": 4096, "sliding_window": None, "use_sliding_window": False}
    rope = {"rope_theta": 1e6, "rope_scaling": {"type": "default", "mrope_section": [16, 24, 24]}}
    names = {"model_type": kind, "architectures": [f"{kind}ForConditionalGeneration"]}
    vision = {"model_type": "siglip_vision_model", "num_hidden_layers": 27, "spatial_merge_size": 2}
    keye = {**names, **text, **rope, "vision_config": vision}
    assert written(keye, layer=26)["architectures"] == [f"TokenPrune{kind}"]
    assert overrides(keye, Settings(PixelPrune()))["architectures"] == [f"TokenPrune{kind}"]
    with pytest.raises(UnsupportedError, match="layer=27 is not in the vision tower: write 0 to 26"):
        written(keye, layer=27)


@pytest.mark.parametrize(
    ("kind", "replaced", "name"),
    [
        ("ovis2_5", "Ovis2_5", "Ovis2_5"),
        ("ovis2_6", "Ovis2_6ForCausalLM", "Ovis2_6"),
        ("ovis2_6_moe", "Ovis2_6_MoeForCausalLM", "Ovis2_6Moe"),
    ],
)
def test_a_tower_whose_layers_without_windows_are_a_text(kind: str, replaced: str, name: str) -> None:
    """Of Ovis 2.5 and 2.6. In published checkpoints it is null, and no layer has windows."""
    text = {"model_type": "qwen3_moe" if kind == "ovis2_6_moe" else "qwen3", "num_hidden_layers": 36}
    names = {"model_type": kind, "architectures": [replaced], "visual_vocab_size": 65536}
    sizes = {"patch_size": 16, "hidden_stride": 2, "window_size": 112, "num_hidden_layers": 27}
    vision = {"model_type": "siglip2_navit", **sizes, "fullatt_block_indexes": None}
    ovis = {**names, "llm_config": text, "vit_config": vision}
    windowed = {**ovis, "vit_config": {**vision, "fullatt_block_indexes": "7|26"}}
    for config, layer in ((ovis, 3), (windowed, 7), (windowed, None)):
        assert written(config, layer=layer)["architectures"] == [f"TokenPrune{name}"]
    assert overrides(ovis, Settings(PixelPrune()))["architectures"] == [f"TokenPrune{name}"]
    with pytest.raises(UnsupportedError, match="layer=3 of this vision tower attends within small windows"):
        written(windowed, layer=3)
    with pytest.raises(UnsupportedError, match="layer=27 is not in the vision tower: write 0 to 26"):
        written(ovis, layer=27)
    with pytest.raises(UnsupportedError, match=rf"type '{kind}' has no 'vit_config'"):
        written({**names, "llm_config": text})


def test_a_tower_like_qwen2_vl_s_with_siglip_s_names() -> None:
    """Of LLaVA-OneVision 2, whose tower's part has the type of the whole."""
    names = {"model_type": "llava_onevision2", "architectures": ["LlavaOnevision2ForConditionalGeneration"]}
    vision = {"model_type": "llava_onevision2", "num_hidden_layers": 24, "spatial_merge_size": 2, "patch_size": 14}
    onevision = {**names, "vision_config": vision, "text_config": {"model_type": "qwen3", "num_hidden_layers": 36}}
    assert written(onevision, layer=23)["architectures"] == ["TokenPruneLlavaOnevision2"]
    assert overrides(onevision, Settings(PixelPrune()))["architectures"] == ["TokenPruneLlavaOnevision2"]
    with pytest.raises(UnsupportedError, match="layer=24 is not in the vision tower: write 0 to 23"):
        written(onevision, layer=24)


def test_a_tower_with_convolutions() -> None:
    """Of LFM3-VL, whose type transformers 5.22 does not know. Convolutions need whole grids of patches."""
    kinds = ["conv", "conv", "sliding_attention", "full_attention"]
    text = {"model_type": "lfm3", "num_hidden_layers": 4, "layer_types": kinds, "sliding_window": 256}
    full = {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5}
    text["rope_parameters"] = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": full}
    vision = {"model_type": "lfm3_vl_vision", "num_hidden_layers": 4, "spatial_merge_size": 2, "patch_size": 16}
    vision["layer_types"] = ["conv", "conv", "full_attention", "conv"]
    names = {"model_type": "lfm3_vl", "architectures": ["Lfm3VlForConditionalGeneration"]}
    lfm3 = {**names, "text_config": text, "vision_config": vision}
    for layer in (2, None):
        assert written(lfm3, layer=layer)["architectures"] == ["TokenPruneLfm3VL"]
    with pytest.raises(UnsupportedError, match=r"layer=3 .* has a convolution in place of attention, so it does not"):
        written(lfm3, layer=3)
    with pytest.raises(UnsupportedError, match="PixelPrune cannot run inside vLLM with TokenPruneLfm3VL"):
        overrides(lfm3, Settings(PixelPrune()))


@pytest.mark.parametrize("nested", [False, True])
def test_a_config_with_or_without_a_part_for_the_language_model(nested: bool) -> None:
    """Of Isaac."""
    names = {"model_type": "isaac", "architectures": ["IsaacForConditionalGeneration"]}
    vision = {"model_type": "pixel_shuffle_siglip2", "num_hidden_layers": 27, "pixel_shuffle_scale_factor": 2}
    text = {"num_hidden_layers": 28, "hidden_size": 2048, "rope_theta": 1e6}
    isaac = {**names, "vision_config": vision, **({"text_config": text} if nested else text)}
    assert written(isaac, layer=26)["architectures"] == ["TokenPruneIsaac"]
    assert overrides(isaac, Settings(PixelPrune()))["architectures"] == ["TokenPruneIsaac"]
    with pytest.raises(UnsupportedError, match="layer=27 is not in the vision tower: write 0 to 26"):
        written(isaac, layer=27)


def test_a_tower_with_the_names_of_a_perception_encoder() -> None:
    """Of Step3-VL."""
    names = {"model_type": "step_robotics", "architectures": ["StepVLForConditionalGeneration"]}
    vision = {"model_type": "perception_encoder", "width": 1536, "layers": 47, "heads": 16, "use_cls_token": False}
    step = {**names, "vision_config": vision, "text_config": {"model_type": "qwen3", "num_hidden_layers": 36}}
    assert written(step, layer=46)["architectures"] == ["TokenPruneStepVL"]
    with pytest.raises(UnsupportedError, match="layer=47 is not in the vision tower: write 0 to 46"):
        written(step, layer=47)
    with pytest.raises(UnsupportedError, match="PixelPrune cannot run inside vLLM with TokenPruneStepVL"):
        overrides(step, Settings(PixelPrune()))


def test_a_config_with_experts_for_images() -> None:
    """As in ERNIE 4.5 VL, which has two numbers where transformers has one number or a kind per layer."""
    experts = {"moe_num_experts": [64, 64], "moe_intermediate_size": [1536, 512], "moe_layer_start_index": [1, 1]}
    text = {"num_hidden_layers": 28, "hidden_size": 2560, "rope_theta": 500000, "tie_word_embeddings": True}
    names = {"model_type": "ernie4_5_moe_vl", "architectures": ["Ernie4_5_VLMoeForConditionalGeneration"]}
    rope = {"rope_scaling": {"type": "default", "mrope_section": [22, 22, 20]}}
    ernie = {**names, **text, **experts, **rope, "vision_config": {"depth": 32, "embed_dim": 1280}}
    assert written(ernie, layer=31)["architectures"] == ["TokenPruneErnie4_5VL"]
    with pytest.raises(UnsupportedError, match="layer=32 is not in the vision tower: write 0 to 31"):
        written(ernie, layer=32)
    with pytest.raises(UnsupportedError, match="PixelPrune cannot run inside vLLM with TokenPruneErnie4_5VL"):
        overrides(ernie, Settings(PixelPrune()))


def test_a_tower_that_ends_with_the_last_pooled_layer() -> None:
    """As in Molmo 2, which transformers also reads, under other names."""
    names = {"model_type": "molmo2", "architectures": ["Molmo2ForConditionalGeneration"]}
    tower = {"num_hidden_layers": 27, "num_attention_heads": 16, "image_default_input_size": [378, 378]}
    text = {"model_type": "molmo2_text", "num_hidden_layers": 36, "rope_theta": 1e6, "additional_vocab_size": 128}
    molmo = {**names, "vit_config": tower, "adapter_config": {"vit_layers": [-3, -9]}, "text_config": text}
    assert written(molmo)["architectures"] == ["TokenPruneMolmo2"]
    assert written(molmo, layer=24)["architectures"] == ["TokenPruneMolmo2"]
    with pytest.raises(UnsupportedError, match="layer=25 is not in the vision tower: write 0 to 24"):
        written(molmo, layer=25)
    renamed = {"vision_config": tower, "adapter_config": {"vision_feature_layer": [24, 18]}}
    with pytest.raises(UnsupportedError, match=r"type 'molmo2' has no 'vit_config'"):
        written({**names, **renamed, "text_config": text})


def test_a_tower_in_transformers_format() -> None:
    """As in Intern-S2 Preview."""
    text = {"model_type": "qwen3_5_moe_text", "num_hidden_layers": 4}
    names = {"model_type": "intern_s2_preview", "architectures": ["InternS2PreviewForConditionalGeneration"]}
    interns2 = {**names, "text_config": text, "vision_config": {"depth": 27}}
    assert written(interns2, layer=26)["architectures"] == ["TokenPruneInternS2"]
    with pytest.raises(UnsupportedError, match="layer=27 is not in the vision tower: write 0 to 26"):
        written(interns2, layer=27)


def test_a_tower_before_another_language_model() -> None:
    """As in HyperCLOVA X, Intern-S2 Mobius and Ling 3.0 VL."""
    text = {"model_type": "hyperclovax", "num_hidden_layers": 4}
    windows = {"model_type": "qwen2_5_vl", "depth": 32, "fullatt_block_indexes": [7, 15, 23, 31]}
    clova = {"model_type": "vlm", "architectures": ["HCXVisionV2ForCausalLM"], "vision_config": windows}
    assert written({**clova, "text_config": text}, layer=31)["architectures"] == ["TokenPruneHyperClovaX"]
    with pytest.raises(UnsupportedError, match=r"layer=30 of this vision tower .*one of 7, 15, 23, 31"):
        written({**clova, "text_config": text}, layer=30)
    named = ["InternS2MobiusForConditionalGeneration"]
    kinds = {"model_type": "interns2_mobius_text", "num_hidden_layers": 2, "num_blocks": 2}
    kinds["layer_types"] = ["linear_attention", "full_attention"]
    mobius = {"model_type": "interns2_mobius", "architectures": named, "vision_config": {"depth": 27}}
    assert written({**mobius, "text_config": kinds}, layer=26)["architectures"] == ["TokenPruneInternS2Mobius"]
    named = ["BailingMoeV3VLForConditionalGeneration"]
    ling = {"model_type": "bailing_moe_v3_vl", "architectures": named, "vision_config": {"depth": 27}}
    unnamed = {"num_hidden_layers": 42, "layer_group_size": 6, "rope_theta": 6000000, "head_dim": 128}
    assert written({**ling, "text_config": unnamed}, layer=26)["architectures"] == ["TokenPruneLing3VL"]


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


def test_the_tower_of_qianfan_ocr() -> None:
    """Whatever name a config has for it, vLLM builds InternViT."""
    vision = {"model_type": "intern_vit_6b", "num_hidden_layers": 24}
    text = {"model_type": "qwen3", "num_hidden_layers": 36}
    names = {"model_type": "qianfan_ocr", "architectures": ["QianfanOCRForConditionalGeneration"]}
    found = written({**names, "vision_config": vision, "text_config": text, "ps_version": "v2"}, layer=23)
    assert found["architectures"] == ["TokenPruneQianfanOCR"]


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
