"""How the model type of a checkpoint is guessed from its name, and in which releases it is known."""

import json
import os
import re
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from helpers.commands import command

from tokenprune.adapters.tested import read_tested
from tokenprune.evals.cli import serve
from tokenprune.evals.models.guesses import guess, patterns
from tokenprune.serving.vllm.architectures import ARCHITECTURES, releases
from tokenprune.serving.vllm.architectures.checkpoints import ONLY_VLLM, checkpoint_type

TYPES = {one.model_type for one in read_tested().values()} | ONLY_VLLM.keys()
#: Checkpoint that no record of a served model names -> the type in its config.
NAMES = {
    "ovis-community/Ovis2.5-2B": "ovis2_5",
    "Deep-VLM/LLaVA-OneVision-1.5-4B-Instruct-hf": "llava_onevision1_5",
    "mistral-community/pixtral-12b": "llava",
    "RedHatAI/Pixtral-Large-Instruct-2411-hf-FP8-dynamic": "llava",
    "google/paligemma2-3b-pt-224": "paligemma",
    "deepseek-community/DeepSeek-OCR-2": "deepseek_ocr2",
    "lerobot/pi0_base": "pi0",
    "lerobot/pi05_base": "pi05",
    "lerobot/pi05_libero_base": "pi05",
}
#: Checkpoints of types without a supported class. Some names contain that of another type.
UNKNOWN = (
    "moonshotai/Kimi-K2-Instruct",
    "openbmb/MiniCPM-V",
    "deepseek-ai/deepseek-vl2-tiny",
    "AIDC-AI/Ovis2.6-80B-A3B",
    "google/gemma-3-1b-it",
    "zai-org/glm-4v-9b",
    "liuhaotian/llava-v1.6-mistral-7b",
    "lmms-lab/LLaVA-OneVision-1.5-8B-Instruct",
    "internlm/Intern-S1-Pro",
    "naver-hyperclovax/HyperCLOVAX-SEED-Think-14B",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "lerobot/pi0fast_base",
)


#: The same for those that have one.
SERVED = {name: one.model_type for one in ARCHITECTURES.values() for name in one.published}


@pytest.mark.parametrize(("name", "model_type"), (NAMES | SERVED).items())
def test_the_type_of_a_published_checkpoint(name: str, model_type: str) -> None:
    found = guess(name, TYPES)
    assert found is not None
    assert checkpoint_type(found.model_type) == model_type


@pytest.mark.parametrize("name", UNKNOWN)
def test_names_that_only_look_like_those_of_a_type(name: str) -> None:
    assert guess(name, TYPES) is None
    said = command("models", name)
    assert said.startswith(f"Error: no class or model type has {name!r} in its name. Look for model_type in")


def test_types_in_the_table() -> None:
    known = TYPES | {one.model_type for one in ARCHITECTURES.values()}
    assert {one.model_type for one in patterns().values() if one is not None} <= known


JUDGED = "Judging by its name, {} has the type {}. To be sure, look"
SERVED_WITH = "  vLLM        tokenprune serve, with "


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("MiniCPM-V-4_5", [JUDGED.format("MiniCPM-V-4_5", "minicpmv"), f"{SERVED_WITH}random, divprune, fopru, "]),
        ("MiniCPM-V-4.5", [JUDGED.format("MiniCPM-V-4.5", "minicpmv")]),
        (
            "Qwen/Qwen3-VL-8B-Instruct",
            [JUDGED.format("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl"), "\nQwen3VLForConditionalGeneration (qwen3_vl)"],
        ),
        (
            "OpenGVLab/InternVL3_5-8B",
            ["\nOnly vLLM reads the format internvl_chat.", "\nInternVLForConditionalGeneration (internvl)"],
        ),
        # Published with the type of Mistral 3, which vLLM expects; transformers has a class for it.
        ("lightonai/LightOnOCR-2-1B", ["LightOnOcrForConditionalGeneration (lighton_ocr)", f"{SERVED_WITH}grid, "]),
        # One type with two architectures. transformers has a class for conversions of the second only, whose visual
        # tokens have no rows and columns.
        (
            "deepseek-ai/DeepSeek-OCR",
            ["Only vLLM reads deepseek_vl_v2, not transformers", f"{SERVED_WITH}grid, "],
        ),
        (
            "deepseek-ai/DeepSeek-OCR-2",
            ["convert the checkpoint to deepseek_ocr2.", "(deepseek_ocr2)", f"{SERVED_WITH}random, "],
        ),
        # Types that differ by punctuation: in its authors' format, which only vLLM reads, and in transformers' format.
        ("unlimited-ocr", ["UnlimitedOcrForConditionalGeneration (unlimited_ocr)", f"{SERVED_WITH}grid, "]),
        (
            "unlimited_ocr",
            ["UnlimitedOcrForConditionalGeneration (unlimited_ocr)", "  vLLM        no: a model of type"],
        ),
    ],
)
def test_what_a_name_says(name: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("models", name) == 0
    shown = capsys.readouterr().out
    assert [part for part in parts if part not in shown] == []


def test_one_type_in_two_formats(capsys: pytest.CaptureFixture[str]) -> None:
    """Ovis 2.5, whose authors' format only vLLM reads, and transformers' only transformers."""
    written = "of this 'ovis2_5' model is as transformers writes it, and vLLM reads .* such as AIDC-AI/Ovis2.5-9B"
    for name, says, served in (
        ("AIDC-AI/Ovis2.5-9B", "Only vLLM reads the format of Ovis2_5, .* such as ovis-community/Ovis2.5-2B", True),
        ("Ovis2.5-9B-GPTQ", "Only vLLM reads the format of Ovis2_5, .* such as ovis-community/Ovis2.5-2B", True),
        ("ovis-community/Ovis2.5-2B", written, False),
        ("Ovis2.5", r"vLLM reads its authors' \(AIDC-AI/Ovis2.5-9B\), transformers its own \(ovis-community/", True),
    ):
        assert command("models", name) == 0
        shown = capsys.readouterr().out
        assert re.search(says, shown), name
        assert "Ovis2_5ForConditionalGeneration (ovis2_5), read by Ovis2_5Adapter" in shown
        assert ("  vLLM        tokenprune serve, with grid, " in shown) == served, name
        assert ("Only vLLM reads" in shown) == ("Only" in says)
        assert ("  formats     " in shown) == (name == "Ovis2.5")


# `tokenprune models` and `tokenprune serve`: models that not all releases of vLLM have.


@pytest.mark.parametrize(
    ("version", "said"),
    [("0.33.0", "vLLM up to 0.33"), ("0.34.0", "KeyeForConditionalGeneration is pruned in vLLM ")],
)
def test_a_model_that_not_all_releases_of_vllm_have(
    version: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(releases, "version", lambda _: version)
    assert command("models", "Kwai-Keye/Keye-VL-8B-Preview") == 0
    shown = capsys.readouterr().out
    assert "  vLLM        tokenprune serve, with grid, " in shown
    assert f"  releases    {said}" in shown
    assert command("models", "dots_ocr") == 0
    assert "  releases    " not in capsys.readouterr().out


def test_a_model_that_this_vllm_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(os, "execv", lambda *_: None)
    vision = {"model_type": "siglip_vision_model", "num_hidden_layers": 4, "spatial_merge_size": 2}
    names = {"architectures": ["KeyeForConditionalGeneration"], "num_hidden_layers": 4, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "Keye", **names}))
    monkeypatch.setattr(releases, "version", lambda _: "0.34.0")
    assert command("serve", "--model", tmp_path).endswith('this is vLLM 0.34.0. Type: pip install "vllm<0.34"')
    assert command("serve", "--model", tmp_path, "--print") == 0  # a printed command may be for another machine
    assert "TokenPruneKeye" in capsys.readouterr().out
    monkeypatch.setattr(releases, "version", lambda _: "0.33.0")
    assert command("serve", "--model", tmp_path) == 0
