"""Nemotron's special processing."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from types import SimpleNamespace

import pytest
from helpers.served.engine import needs_vllm
from helpers.served.family import FOPRU

from tokenprune.errors import SettingError
from tokenprune.serving.vllm.settings import Settings

pytestmark = [needs_vllm, pytest.mark.slow]


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
