"""Nemotron as vLLM configures it under each of its names, and its special processing."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.served.converted.internvl import CHAT_OPTIONS
from helpers.served.converted.nemotron import (
    NAMES,
    NANO_VL,
    NEMOTRON_OPTIONS,
    OMNI,
    run_nemotron_on_cpus,
    save_nemotron,
)
from helpers.served.engine import check_equal, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU
from helpers.served.models import IMAGE
from helpers.served.reference import Request

from tokenprune.errors import SettingError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.plugin import register
from tokenprune.serving.vllm.settings import Settings

pytestmark = [needs_vllm, pytest.mark.slow]
OURS = {one.replaces: one.name for one in ARCHITECTURES.values()}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_configured_like_the_unpruned_model(name: str, tmp_path: Path) -> None:
    """For example how videos are read and which state layers keep, some of which vLLM decides by the name."""
    from vllm import ModelRegistry
    from vllm.engine.arg_utils import EngineArgs

    register()
    run_nemotron_on_cpus()
    save_nemotron(tmp_path, name)

    def seen(**overrides: Any) -> list[Any]:
        options = {"max_model_len": 256, "hf_overrides": overrides, **CHAT_OPTIONS}
        config = EngineArgs(str(tmp_path), **options).create_engine_config()
        model, cache = config.model_config, config.cache_config
        kind, _ = ModelRegistry.resolve_model_cls(model.architectures, model)
        states = kind.get_mamba_state_shape_from_config(config), kind.get_mamba_state_dtype_from_config(config)
        reading = model.multimodal_config.media_io_kwargs
        return [model.is_hybrid, reading, cache.mamba_cache_mode, cache.mamba_ssm_cache_dtype, *states]

    own = seen()
    assert own[0]
    assert own[1] or name != NANO_VL  # vLLM 0.34 reads the videos of all of them in its own way
    assert seen(architectures=[OURS[name]], tokenprune=FOPRU) == own


def test_vllm_takes_it_for_what_it_replaces() -> None:
    from vllm.model_executor.models.nano_nemotron_vl import NemotronH_Nano_VL_V2
    from vllm.model_executor.models.registry import _ModelInfo

    from tokenprune.serving.vllm.models.nemotron import PrunedNemotron

    ours, theirs = map(_ModelInfo.from_model_cls, (PrunedNemotron, NemotronH_Nano_VL_V2))
    assert theirs.is_hybrid
    assert replace(ours, architecture=theirs.architecture) == theirs


def test_a_norm_between_tower_and_projector(tmp_path: Path) -> None:
    """In checkpoints that were trained with multi-token prediction, whose type transformers knows."""
    save_nemotron(tmp_path, OMNI, num_nextn_predict_layers=1)
    a, b = (1, 140, 112), (2, 200, 90)
    requests = [Request(f"w1 {IMAGE} w2", (a,)), Request(f"{IMAGE} w1 {IMAGE} w2", (b, a), keep_ratio=0.5)]
    answers = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, OURS[OMNI], FOPRU, **NEMOTRON_OPTIONS) as llm:
        for output, answer in zip(served(llm, requests), answers, strict=True):
            check_equal(output, answer)


def test_sizes_of_towers_are_those_of_vllm() -> None:
    from vllm.transformers_utils.configs.radio import VIT_TIMM_DIM_BY_NAME

    from tokenprune.serving.vllm.towers.radio import SIZES

    theirs = {name: (layers, heads) for name, (_, layers, heads, _) in VIT_TIMM_DIM_BY_NAME.items()}
    later = {"vit_so400m_patch16_224"}  # which vLLM 0.32 does not build
    assert theirs == {name: size for name, size in SIZES.items() if name in theirs or name not in later}


def test_options_of_a_prompt_with_the_sound_of_its_videos() -> None:
    """These options are checked too."""
    from tokenprune.serving.vllm.models.nemotron import NemotronProcessor

    processor = NemotronProcessor.__new__(NemotronProcessor)
    processor.settings = Settings.read(FOPRU)
    options = {"keepratio": 0.5, "use_audio_in_video": True}
    with pytest.raises(SettingError, match=r"'keepratio' does nothing\. Did you mean 'keep_ratio'"):
        processor.apply(SimpleNamespace(hf_processor_mm_kwargs=options), None)


def test_what_vllm_makes_up_to_measure_memory_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM copies the options, without those that it has already used."""
    from tokenprune.serving.vllm.models.nemotron import NemotronProcessor
    from tokenprune.serving.vllm.processor import processor

    counted: list[tuple[int, int]] = []
    monkeypatch.setattr(processor, "count_image", lambda *counts: counted.append(counts))
    image = SimpleNamespace(content=SimpleNamespace(n_visual=8, n_kept=8))
    made = SimpleNamespace(prompt_updates={"image": [[image]]})
    monkeypatch.setattr(NemotronProcessor.__mro__[2], "_cached_apply_hf_processor", lambda *_: made, raising=False)
    monkeypatch.setattr(NemotronProcessor, "_check_encoded", lambda *_: None)
    monkeypatch.setattr(NemotronProcessor, "_check_length", lambda *_: None)
    ours = NemotronProcessor.__new__(NemotronProcessor)
    ours.settings = Settings.read(FOPRU)
    for options in (dict(processor.PROFILING_OPTIONS), {"keep_ratio": float("1")}):
        inputs = SimpleNamespace(hf_processor_mm_kwargs=options, mm_data_items={}, cache=None)
        ours._cached_apply_hf_processor(inputs, None)
    assert counted == [(8, 8)]
