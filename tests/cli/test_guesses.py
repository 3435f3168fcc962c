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
    "openbmb/MiniCPM-V-2",
    "openbmb/MiniCPM-OCR-1.0-DSpark",
    "deepseek-ai/deepseek-vl2-tiny",
    "AIDC-AI/Ovis2.6-80B-A3B",
    "Kwai-Keye/Keye-VL-2.0-30B-A3B",
    "google/gemma-3-1b-it",
    "google/medgemma-4b-it",
    "zai-org/glm-4v-9b",
    "liuhaotian/llava-v1.6-mistral-7b",
    "lmms-lab/LLaVA-OneVision-1.5-8B-Instruct",
    "mirror/LLaVA-OneVision-1.5-8B-Instruct",
    "internlm/Intern-S1-Pro",
    "PerceptronAI/Isaac-0.5",
    "inclusionAI/Ling-3.0-flash",
    "stepfun-ai/step3",
    "naver-hyperclovax/HyperCLOVAX-SEED-Think-14B",
    "naver-hyperclovax/HyperCLOVAX-SEED-Vision-Instruct-3B",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "lerobot/pi0fast_base",
    "lerobot/pi052_base",
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


def test_a_published_name_without_its_publisher(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("MiniCPM-V-4_5", "MiniCPM-V-4.5"):
        assert command("models", name) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"Judging by its name, {name} has the type minicpmv. To be sure, look")
        assert "tokenprune serve, with random, divprune, fopru, " in shown


def test_a_guess_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("models", "Qwen/Qwen3-VL-8B-Instruct") == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("Judging by its name, Qwen/Qwen3-VL-8B-Instruct has the type qwen3_vl. To be sure, look")
    assert second.startswith("Qwen3VLForConditionalGeneration (qwen3_vl)")
    assert command("models", "OpenGVLab/InternVL3_5-8B") == 0
    _, second, third, *_ = capsys.readouterr().out.splitlines()
    assert second.startswith("Only vLLM reads the format internvl_chat.")
    assert third.startswith("InternVLForConditionalGeneration (internvl)")


def test_a_checkpoint_whose_class_has_another_type(capsys: pytest.CaptureFixture[str]) -> None:
    """LightOn OCR is published with the type of Mistral 3, which vLLM expects; transformers has a class for it."""
    assert command("models", "lightonai/LightOnOCR-2-1B") == 0
    shown = capsys.readouterr().out
    assert "LightOnOcrForConditionalGeneration (lighton_ocr)" in shown
    assert "  vLLM        tokenprune serve, with grid, " in shown


def test_a_type_with_several_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    """transformers has a class for conversions of DeepSeek-OCR 2 only, whose visual tokens have no rows and columns."""
    assert command("models", "deepseek-ai/DeepSeek-OCR") == 0
    first = capsys.readouterr().out
    assert "Only vLLM reads deepseek_vl_v2, not transformers" in first
    assert "  vLLM        tokenprune serve, with grid, " in first
    assert command("models", "deepseek-ai/DeepSeek-OCR-2") == 0
    second = capsys.readouterr().out
    assert "convert the checkpoint to deepseek_ocr2." in second
    assert "DeepseekOcr2ForConditionalGeneration (deepseek_ocr2)" in second
    assert "  vLLM        tokenprune serve, with random, " in second


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


def test_types_that_differ_by_punctuation(capsys: pytest.CaptureFixture[str]) -> None:
    """As Unlimited-OCR's in its authors' format, which only vLLM reads, and in transformers' format."""
    for name, said in (("unlimited-ocr", "tokenprune serve, with grid, "), ("unlimited_ocr", "no: a model of type")):
        assert command("models", name) == 0
        shown = capsys.readouterr().out
        assert "UnlimitedOcrForConditionalGeneration (unlimited_ocr)" in shown
        assert f"  vLLM        {said}" in shown


# `tokenprune models` and `tokenprune serve`: models that not all releases of vLLM have.


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.33.0", "vLLM up to 0.33"),
        (
            "0.34.0",
            "KeyeForConditionalGeneration is pruned in vLLM up to 0.33, and this is vLLM 0.34.0. "
            'Type: pip install "vllm<0.34"',
        ),
    ],
)
def test_a_model_that_not_all_releases_of_vllm_have(
    version: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(releases, "version", lambda _: version)
    assert command("models", "Kwai-Keye/Keye-VL-8B-Preview") == 0
    shown = capsys.readouterr().out
    assert "  vLLM        tokenprune serve, with grid, " in shown
    assert f"  releases    {said}\n" in shown
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
    said = command("serve", "--model", tmp_path)
    assert said == (
        "Error: KeyeForConditionalGeneration is pruned in vLLM up to 0.33, and this is vLLM 0.34.0. "
        'Type: pip install "vllm<0.34"'
    )
    assert command("serve", "--model", tmp_path, "--print") == 0  # a printed command may be for another machine
    assert "TokenPruneKeye" in capsys.readouterr().out
    monkeypatch.setattr(releases, "version", lambda _: "0.33.0")
    assert command("serve", "--model", tmp_path) == 0
