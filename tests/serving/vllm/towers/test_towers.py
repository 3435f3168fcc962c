"""Vision towers, described by configs of several libraries."""

from types import SimpleNamespace
from typing import Any

import pytest

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.towers.from_config import config_with_tower, encoder_layer, n_heads, unwindowed_layers


def muse(*kinds: str) -> Any:
    vision = SimpleNamespace(num_hidden_layers=len(kinds), layer_types=[f"{kind}_attention" for kind in kinds])
    return SimpleNamespace(model_type="muse_glimmer", vision_config=vision)


def test_layers_with_windows() -> None:
    config = muse("window", "full", "window", "full", "window")
    assert unwindowed_layers(config.vision_config) == [1, 3]
    assert encoder_layer(config, None) == 3
    assert encoder_layer(config, -4) == 1
    with pytest.raises(UnsupportedError, match=r"layer=-1 .* within small windows.* layer 3, or one of 1, 3"):
        encoder_layer(config, -1)
    with pytest.raises(UnsupportedError, match="no layer of this vision tower can be read"):
        encoder_layer(muse("window", "window"), None)


def test_names_of_a_checkpoints_own_code() -> None:
    vision = SimpleNamespace(layers=4, heads=2)
    step = SimpleNamespace(model_type="step3p7", vision_config=vision)
    assert n_heads(vision) == 2
    assert encoder_layer(step, None) == 3
    with pytest.raises(UnsupportedError, match="layer=4 is not in the vision tower: write 0 to 3"):
        encoder_layer(step, 4)
    vision = SimpleNamespace(vt_num_hidden_layers=3, vt_num_attention_heads=6)
    assert n_heads(vision) == 6
    assert encoder_layer(SimpleNamespace(model_type="kimi_k3", vision_config=vision), None) == 2


def test_a_tower_that_is_described_by_a_dict() -> None:
    """As in vLLM's config of MiniMax M3."""
    published: dict[str, Any] = {"num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 14}
    minimax = SimpleNamespace(model_type="minimax_m3_vl", vision_config=published, other=1)
    found = config_with_tower(minimax)
    assert (encoder_layer(found, None), n_heads(found.vision_config), found.other) == (2, 2, 1)
    assert (found.vision_config.spatial_merge_size, found.vision_config.patch_size) == (2, 14)
    with pytest.raises(UnsupportedError, match="layer=3 is not in the vision tower: write 0 to 2"):
        encoder_layer(found, 3)
    published["img_token_compression_config"] = {"spatial_merge_size": 4}
    assert config_with_tower(minimax).vision_config.spatial_merge_size == 4
    assert minimax.vision_config is published


@pytest.mark.parametrize(("deep", "spatial", "last"), [([[-3, 1], [-1, 0]], -2, 5), ([[-3, 1]], -2, 4), (None, -4, 2)])
def test_features_of_several_encoder_layers(deep: Any, spatial: int, last: int) -> None:
    """In Granite 4 Vision, the last layer with features counts."""
    config = SimpleNamespace(
        model_type="granite4_vision",
        vision_config=SimpleNamespace(num_hidden_layers=6),
        deepstack_layer_map=deep,
        spatial_vision_layer=spatial,
    )
    found = config_with_tower(config)
    assert encoder_layer(found, None) == last
    assert encoder_layer(found, 1) == 1
    if last < 5:
        with pytest.raises(UnsupportedError, match=f"layer=5 of this vision tower.+ Write null for layer {last}"):
            encoder_layer(found, 5)
