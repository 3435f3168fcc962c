"""Which strategies run with models whose images or configs are unlike LLaVA's."""

from types import SimpleNamespace
from typing import Any

import pytest
import transformers

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.startup.refusals import check_model

RESAMPLED = {"MiniCPMV": "minicpmv", "MiniCPMO": "minicpmo"}
#: What an error suggests for a model that projects pixels, instead of FoPru or VisionZip, which read a tower.
FEATURES_ONLY = r"Use a strategy that reads only the features of visual tokens, such as DivPrune\.$"


def config_of(name: str, **settings: Any) -> Any:
    if name in RESAMPLED:
        kind: Any = type("Config", (transformers.Qwen2Config,), {"model_type": RESAMPLED[name]})
        return kind(**{"vision_config": transformers.SiglipVisionConfig(num_hidden_layers=4), **settings})
    made = {
        "Gemma4": lambda: transformers.Gemma4Config(vision_config=transformers.Gemma4VisionConfig()),
        "Gemma4Unified": lambda: transformers.Gemma4UnifiedConfig(vision_config={}),
        "Lfm2VL": transformers.Lfm2VlConfig,
        "Qwen2_5Omni": transformers.Qwen2_5OmniConfig,
        "Qwen3Omni": transformers.Qwen3OmniMoeConfig,
    }
    return made[name]()


def check(name: str, strategy: str, architecture: str | None = None, **settings: Any) -> None:
    """settings: those of the strategy, and of MiniCPM-V's config."""
    of_config = {one: settings.pop(one) for one in ("vision_config", "drop_vision_last_layer") if one in settings}
    config, ours = config_of(name, **of_config), f"TokenPrune{architecture or name}"
    config.architectures = [ours]
    config.tokenprune = {"strategy": strategy, "keep_ratio": 0.25, **settings}
    multimodal = SimpleNamespace(enable_mm_embeds=False, mm_processor_kwargs=None)
    check_model(
        ARCHITECTURES[ours], SimpleNamespace(hf_config=config, multimodal_config=multimodal, max_model_len=2048)
    )


@pytest.mark.parametrize("name", ["Gemma4", "Lfm2VL"])
def test_images_that_are_padded(name: str) -> None:
    """To sizes that do not divide into the tower's patches, so colours cannot be read."""
    check(name, "fopru")
    with pytest.raises(UnsupportedError, match="alpha"):
        check(name, "vflowopt:progressive=False", alpha=0.5)


@pytest.mark.parametrize("name", RESAMPLED)
def test_visual_tokens_that_have_read_all_patches(name: str) -> None:
    """Strategies may read features, attention and colours, but no grid."""
    for strategy in ("divprune", "fopru", "visionzip", "vflowopt:progressive=False,recycle=False"):
        check(name, strategy)
    for strategy in ("mosaic", "grid", "fopru:mode=row", "averagepooling"):
        with pytest.raises(UnsupportedError, match=f"{name}: it needs the rows and columns of visual tokens"):
            check(name, strategy)


def test_a_tower_without_its_last_layer() -> None:
    check("MiniCPMV", "fopru:layer=2", drop_vision_last_layer=True)
    with pytest.raises(UnsupportedError, match="layer=3 of this vision tower is not built by vLLM, which stops after"):
        check("MiniCPMV", "fopru:layer=3", drop_vision_last_layer=True)
    check("MiniCPMV", "fopru:layer=3", drop_vision_last_layer=False)


def test_the_first_versions_of_minicpm_v() -> None:
    with pytest.raises(UnsupportedError, match=r"no vision_config, as in MiniCPM-V 1 and 2\.0, which cannot be pruned"):
        check("MiniCPMV", "divprune", vision_config=None)


@pytest.mark.parametrize(
    ("name", "last", "refused", "said"),
    [
        ("Qwen3Omni", 26, 27, "layer=27 is not in the vision tower: write 0 to 26"),
        ("Qwen2_5Omni", 31, 30, "layer=30 of this vision tower attends within small windows"),
    ],
)
def test_a_tower_in_the_thinkers_part_of_a_config(name: str, last: int, refused: int, said: str) -> None:
    check(name, "fopru", layer=last)
    with pytest.raises(UnsupportedError, match=said):
        check(name, "fopru", layer=refused)
    check(name, "pixelprune", keep_ratio=0.5)


def test_a_model_without_a_tower() -> None:
    """It projects pixels."""
    for strategy in ("divprune", "grid", "random"):
        check("Gemma4Unified", strategy)
    for strategy in ("fopru", "mosaic", "prumerge", "visionzip", "vflowopt:progressive=False"):
        said = rf"TokenPruneGemma4Unified inside vLLM does not have it; it offers: pixels\. {FEATURES_ONLY}"
        with pytest.raises(UnsupportedError, match=said):
            check("Gemma4Unified", strategy)
    for strategy in ("fastv", "evs", "flowcut", "pixelprune", "efficientvla:skip=1"):
        with pytest.raises(UnsupportedError, match=FEATURES_ONLY):
            check("Gemma4Unified", strategy)
    with pytest.raises(UnsupportedError, match="alpha"):
        check("Gemma4Unified", "vflowopt:progressive=False", alpha=0.5)


@pytest.mark.parametrize(("name", "another"), [("Qwen3Omni", "Qwen3VL"), ("Gemma4Unified", "Gemma3")])
def test_an_architecture_of_another_model(name: str, another: str) -> None:
    with pytest.raises(UnsupportedError, match=rf'Write "architectures": \["TokenPrune{name}"\]'):
        check(name, "divprune", another)
