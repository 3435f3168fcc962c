"""Towers of which a config says only a name or a width: Nemotron's RADIO, and the encoders of DeepSeek-OCR."""

from types import SimpleNamespace
from typing import Any

import pytest

from tokenprune import FoPru
from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.hf_overrides import overrides
from tokenprune.serving.vllm.settings import Settings
from tokenprune.serving.vllm.towers.from_config import config_with_tower, n_heads, tower_of_config


def written(config: dict[str, Any], layer: int | None = None) -> dict[str, Any]:
    return overrides(config, Settings(FoPru(layer=layer)))


def nemotron(**vision: Any) -> dict[str, Any]:
    """Return the config of Nemotron Nano Omni, whose language model has no rotary embedding."""
    args = {"model": "vit_huge_patch16_224", "register_multiple": 10, "cls_token_per_teacher": True}
    args |= {"teachers": [{"name": name} for name in ("clip", "siglip", "dino_v2", "sam")], "min_num_patches": 1024}
    text = {"model_type": "nemotron_h", "num_hidden_layers": 6, "hybrid_override_pattern": "MEM*-E"}
    name = "NemotronH_Nano_Omni_Reasoning_V3"
    names = {"model_type": name, "architectures": [name], "ps_version": "v2"}
    return {**names, "vision_config": {"patch_size": 16, "args": args, **vision}, "llm_config": text}


def test_a_tower_that_is_named() -> None:
    """Its number of class and register tokens follows from the teachers and a multiple."""
    assert written(nemotron(), layer=31)["architectures"] == ["TokenPruneNemotronNanoOmni"]
    with pytest.raises(UnsupportedError, match="layer=32 is not in the vision tower: write 0 to 31"):
        written(nemotron(), layer=32)
    overrides(nemotron(), Settings(FoPru(score="cls")))
    config = SimpleNamespace(**{**nemotron(), "vision_config": SimpleNamespace(**nemotron()["vision_config"])})
    assert (tower_of_config(config).n_prefix, n_heads(config.vision_config)) == (10, 16)
    config.vision_config.args = {"model": "vit_base_patch16_224"}
    assert (tower_of_config(config).n_prefix, n_heads(config.vision_config)) == (1, 12)


def test_the_same_tower_in_a_config_that_transformers_reads() -> None:
    """Its defaults are those of the largest tower."""
    omni = {**nemotron(video_temporal_patch_size=2), "model_type": "nemotron_h_omni"}
    omni["architectures"] = ["NemotronH_Omni_Reasoning_V3"]
    omni["vision_config"]["args"]["model"] = "vit_base_patch16_224"
    assert written(omni, layer=11)["architectures"] == ["TokenPruneNemotronOmni"]
    with pytest.raises(UnsupportedError, match="layer=12 is not in the vision tower: write 0 to 11"):
        written(omni, layer=12)
    del omni["vision_config"]["args"]
    with pytest.raises(UnsupportedError, match=r'has no "args", from which vLLM builds .* as it is published'):
        written(omni)


def test_a_tower_that_vllm_does_not_build() -> None:
    with pytest.raises(UnsupportedError, match=r"the vision tower 'vit_giant' in .* vLLM builds only vit_small"):
        written(nemotron(args={"model": "vit_giant"}))


def deepseek(name: str, model_type: str, **encoder: dict[str, int]) -> dict[str, Any]:
    """Return a config as published, with numbers of its language model only."""
    text = {"num_hidden_layers": 12, "hidden_size": 1280, "use_mla": False, "kv_lora_rank": None, "v_head_dim": 0}
    width = {**encoder, "sam_vit_b": {"heads": 12, "layers": 12, "width": 768}}
    vision = {"image_size": 1024, "model_type": "vision", "width": width}
    return {"model_type": model_type, "architectures": [name], "language_config": text, "vision_config": vision}


CLIP = {"clip-l-14-224": {"heads": 16, "layers": 24, "width": 1024, "image_size": 224, "patch_size": 14}}


@pytest.mark.parametrize(
    ("name", "model_type", "encoder", "n_prefix"),
    [
        ("DeepseekOCR", "deepseek_vl_v2", CLIP, 1),
        ("UnlimitedOCR", "unlimited-ocr", CLIP, 1),
        ("DeepseekOCR2", "deepseek_vl_v2", {"qwen2-0-5b": {"dim": 896}}, 0),
    ],
)
def test_the_second_of_two_encoders(name: str, model_type: str, encoder: dict[str, Any], n_prefix: int) -> None:
    """As in DeepSeek-OCR, whose config names the layers of both, and in its second version, whose config does not."""
    published = deepseek(f"{name}ForCausalLM", model_type, **encoder)
    assert written(published, layer=23)["architectures"] == [f"TokenPrune{name}"]
    with pytest.raises(UnsupportedError, match="layer=24 is not in the vision tower: write 0 to 23"):
        written(published, layer=24)
    config = SimpleNamespace(model_type=model_type, vision_config=SimpleNamespace(**published["vision_config"]))
    found = config_with_tower(config)
    assert tower_of_config(found).n_prefix == n_prefix
    assert n_prefix == 0 or n_heads(found.vision_config) == 16
    with pytest.raises(UnsupportedError, match=rf"type '{model_type}' has no 'language_config'"):
        written({name: part for name, part in published.items() if name != "language_config"})
