"""vLLM takes our models for the ones that they replace: above all, as models with a state. Other tests replace the
language models of some."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import ANY, Mock

import pytest
from helpers.served.cpu.nemotron import run_nemotron_on_cpus
from helpers.served.engine import needs_vllm
from helpers.served.families import CODE, save_kimi_k31
from helpers.served.family import FOPRU
from helpers.served.stored import save, stored

from tokenprune import FoPru
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.releases import reason_of_lack
from tokenprune.serving.vllm.plugin import register

pytestmark = [needs_vllm, pytest.mark.slow]
#: Layers with and without a state.
KDA = {"kda_layers": [1, 3], "full_attn_layers": [2], "num_heads": 2, "head_dim": 32, "short_conv_kernel_size": 4}
KIMI = {"linear_attn_config": KDA, "mla_use_nope": True}
#: How to save a checkpoint, with which settings of its language model.
SAVED: dict[str, tuple[Any, dict[str, Any]]] = {
    "TokenPruneKimiK3": (stored("kimi_k3"), KIMI),
    "TokenPruneKimiK31": (save_kimi_k31, KIMI),
    "TokenPruneLing3VL": (stored("ling3_vl"), {"layer_group_size": 3}),
    "TokenPruneNemotronNanoVL": (stored("nemotron_nano_vl"), {}),
    "TokenPruneNemotronNanoOmni": (stored("nemotron_omni"), {}),
    "TokenPruneNemotronSuperOmni": (stored("nemotron_super_omni"), {}),
    "TokenPruneNemotronOmni": (stored("nemotron_h_omni"), {}),
}


@pytest.mark.parametrize("name", SAVED)
def test_it_is_configured_like_the_unpruned_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example how videos are read and which state layers keep, some of which vLLM decides by the name."""
    if reason := reason_of_lack(ARCHITECTURES[name]):
        pytest.skip(reason)
    from vllm import ModelRegistry
    from vllm.engine.arg_utils import EngineArgs

    register()
    run_nemotron_on_cpus()
    home = f"tokenprune.serving.vllm.models.{ARCHITECTURES[name].home}"
    ModelRegistry.register_model(name, home)  # other tests may have registered another class
    save, settings = SAVED[name]
    save(tmp_path, **settings)

    monkeypatch.setattr("tokenprune.serving.vllm.plugin.logger", logger := Mock())

    def seen(**overrides: Any) -> dict[str, Any]:
        options = {"max_model_len": 256, "hf_overrides": overrides, **CODE}
        config = EngineArgs(str(tmp_path), **options).create_engine_config()
        model, cache = config.model_config, config.cache_config
        kind, _ = ModelRegistry.resolve_model_cls(model.architectures, model)
        return {
            "hybrid": model.is_hybrid,
            "three components": model.uses_mrope,
            "tokenizer": model.tokenizer_mode,
            "reading": model.multimodal_config.media_io_kwargs,
            "caches": [cache.mamba_cache_mode, cache.mamba_ssm_cache_dtype],
            "shapes": kind.get_mamba_state_shape_from_config(config),
            "dtypes": kind.get_mamba_state_dtype_from_config(config),
        }

    own, pruned = seen(), seen(architectures=[name], tokenprune=FOPRU)
    assert own["hybrid"]
    # vLLM keeps original position IDs of a pruned prompt, whose text follows gaps, only as those with three components.
    assert pruned.pop("three components")
    assert own.pop("three components") == (name == "TokenPruneLing3VL")
    assert (own["tokenizer"] == "kimi_k3") == ("Kimi" in name)
    assert own["reading"] or name != "TokenPruneNemotronNanoVL"  # vLLM 0.34 reads those of all in its own way
    assert pruned == own
    ids = "original" if ARCHITECTURES[name].reads_position_ids else "compact"
    logger.info.assert_called_once_with(ANY, name, FoPru(keep_ratio=0.25), ids)


@pytest.mark.parametrize(
    ("ours", "theirs", "hybrid"),
    [
        ("glm5_next:PrunedGlm5Next", "models.glm5next:Glm5NextForConditionalGeneration", True),
        ("minimax_m3:PrunedMiniMaxM3", "models.minimax_m3:MiniMaxM3SparseForConditionalGeneration", False),
        ("nemotron:PrunedNemotron", "model_executor.models.nano_nemotron_vl:NemotronH_Nano_VL_V2", True),
    ],
)
def test_what_vllm_reads_from_a_class(ours: str, theirs: str, hybrid: bool) -> None:
    from vllm.model_executor.models.registry import _ModelInfo

    found = []
    for place in (f"tokenprune.serving.vllm.models.{ours}", f"vllm.{theirs}"):
        module, _, kind = place.partition(":")
        found.append(_ModelInfo.from_model_cls(getattr(import_module(module), kind)))
    assert found[1].is_hybrid == hybrid
    assert replace(found[0], architecture=found[1].architecture) == found[1]


def test_position_ids_have_three_components_in_any_config(tmp_path: Path) -> None:
    """vLLM's own model counts tokens instead unless config.json names the sections, which are in the model's code."""
    from vllm.engine.arg_utils import EngineArgs

    register()
    save("isaac", tmp_path)

    def seen(**overrides: Any) -> tuple[bool, int]:
        model = EngineArgs(str(tmp_path), max_model_len=256, hf_overrides=overrides).create_engine_config().model_config
        return model.uses_mrope, model.mrope_num_dims

    assert seen() == (False, 0)
    assert seen(architectures=["TokenPruneIsaac"], tokenprune=FOPRU) == (True, 3)
