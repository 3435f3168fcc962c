"""`tokenprune models`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import command
from helpers.families import FAMILIES

import tokenprune
from tokenprune import STRATEGIES, UnsupportedError
from tokenprune.adapters import ADAPTERS
from tokenprune.adapters.refused import NEVER
from tokenprune.adapters.tested import read_tested
from tokenprune.evals.cli.models import CONTRACTS, strategies_of
from tokenprune.evals.models.checkpoint import Checkpoint, in_vllm
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.checkpoints import CONVERTED, ONLY_VLLM, checkpoint_type
from tokenprune.strategies.registry import name_of
from tokenprune.strategy import StagedStrategy

#: The config of an InternVL in its authors' format, without its language model.
INTERNVL = {
    "model_type": "internvl_chat",
    "architectures": ["InternVLChatModel"],
    "vision_config": {"model_type": "intern_vit_6b", "num_hidden_layers": 24},
    "ps_version": "v2",
    "select_layer": -1,
}


def write(folder: Path, **config: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def test_every_class_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("models") == 0
    shown = capsys.readouterr().out
    for name in ADAPTERS:
        assert name in shown
    assert f"{len(ADAPTERS)} classes" in shown


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "qwen2_5_vl",
            [
                "Qwen2_5_VLForConditionalGeneration (qwen2_5_vl), read by Qwen2_5_VLAdapter",
                f"  contract    masking: pruning equals {CONTRACTS['masking']}",
                "  vLLM        tokenprune serve, with grid, averagepooling, random, ",
            ],
        ),
        (
            "gemma3n",
            [
                "  vLLM        no: a model of type 'gemma3n' cannot be pruned inside vLLM.",
                "  not         inputs_embeds (padded): transformers itself does not support it",
            ],
        ),
        *((name, ["Qwen3VLForConditionalGeneration (qwen3_vl)"]) for name in ("Qwen3-VL", "qwen3vl", "QWEN3_VL")),
        ("Mllama", [NEVER["MllamaForConditionalGeneration"]]),
        ("Qwen2_5OmniForConditionalGeneration", ["Patch that: patch(model.thinker, ...)"]),
        (
            "LlavaForConditionalGeneration",
            [f"tests of llava-{tower}, largest difference " for tower in ("clip", "siglip", "dinov2", "pixtral")],
        ),
    ],
)
def test_what_is_said_of_a_class(name: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("models", name) == 0
    shown = capsys.readouterr().out
    assert [part for part in parts if part not in shown] == []


def test_strategies_that_vllm_can_serve(capsys: pytest.CaptureFixture[str]) -> None:
    for name, before_tower in (("Qwen3VLForConditionalGeneration", True), ("InternVLForConditionalGeneration", False)):
        assert command("models", name) == 0
        shown = capsys.readouterr().out
        (served,) = re.findall("  vLLM        tokenprune serve, with (.+)", shown)
        assert ("pixelprune" in served.split(", ")) == before_tower
        assert "fopru" in served.split(", ")
        assert "fastv" not in served.split(", ")
        assert "fastv" in shown


def test_what_vllm_can_serve() -> None:
    types = {checkpoint_type(one.model_type) for one in read_tested().values()}
    served = {one for one in types if in_vllm(Checkpoint(one)) is None}
    all_served = {architecture.model_type for architecture in ARCHITECTURES.values()}
    assert served == all_served - CONVERTED.keys() - ONLY_VLLM.keys()


def test_every_contract_is_explained() -> None:
    assert {one.contract for one in read_tested().values()} == set(CONTRACTS)


def test_an_unknown_name() -> None:
    assert "Did you mean qwen2_5_vl?" in command("models", "qwen2_5_vll")
    assert "Did you mean smolvlm? Look for model_type" in command("models", "SmolVLM2")


def test_the_folder_of_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    assert command("models", tmp_path) == 0
    assert capsys.readouterr().out.startswith("Qwen3VLForConditionalGeneration (qwen3_vl)")
    (tmp_path / "config.json").write_text('{"model_type": "llava", "vision_config": {"model_type": "dinov2"}}')
    assert command("models", tmp_path) == 0
    shown = capsys.readouterr().out
    assert shown.count("read by") == shown.count("tests of llava-dinov2") == 1
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl", "architectures": ["JinaVLForRanking"]}')
    assert command("models", tmp_path) == 0
    assert "  vLLM        no: config.json names JinaVLForRanking in " in capsys.readouterr().out
    (tmp_path / "config.json").write_text('{\n "model_type": "llava"\n"dtype": 1}')
    assert f"{tmp_path / 'config.json'}, line 3, column 1: broken JSON: " in command("models", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert f"{tmp_path}: this folder has no config.json with a model_type" in command("models", tmp_path)
    said = command("models", tmp_path / "config.json")
    assert said == f"Error: {tmp_path / 'config.json'} is a file. Name the folder of the model: {tmp_path}"


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen3", "minicpmv4", "gemma3_text", "interns1_pro"])
def test_a_type_that_is_part_of_another(model_type: str, tmp_path: Path) -> None:
    write(tmp_path, model_type=model_type, num_hidden_layers=2)
    assert f"{tmp_path}: a model of type {model_type!r} can be pruned neither in" in command("models", tmp_path)


SCALING = {"type": "su", "long_factor": [2.0] * 48, "short_factor": [1.0] * 48}
LENGTHS = {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}
PHI = {"model_type": "phi3", "hidden_size": 3072, "rope_scaling": SCALING, **LENGTHS}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {**INTERNVL, "llm_config": PHI},
            "no: the language model's rotary embedding is of type 'longrope'",
        ),
        ({"model_type": "qwen2_5_omni_thinker"}, "'qwen2_5_omni_thinker' is a thinker alone"),
        pytest.param(
            {"model_type": "gemma4", "vision_config": None},
            "  vLLM        no: config.json has no vision_config",
            marks=pytest.mark.skipif("gemma4" not in FAMILIES, reason="an older transformers"),
        ),
    ],
)
def test_the_config_decides_what_vllm_can_serve(
    config: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(tmp_path, **config)
    assert command("models", tmp_path) == 0
    assert said in capsys.readouterr().out


def test_a_config_in_another_format_than_transformers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The original LLaVA, whose weights have other names than in transformers' class for its type."""
    warning = "config.json names LlavaLlamaForCausalLM. If the names of its weights differ from"
    write(tmp_path, model_type="llava", architectures=["LlavaLlamaForCausalLM"])
    assert command("models", tmp_path) == 0
    assert capsys.readouterr().out.startswith(warning)
    for model_type, name in (
        ("llava", "LlavaForConditionalGeneration"),
        ("kimi_k25", "KimiK25ForConditionalGeneration"),
        ("qwen2_5_omni", "Qwen2_5OmniModel"),
        ("mistral3", "LightOnOCRForConditionalGeneration"),
    ):
        write(tmp_path, model_type=model_type, architectures=[name])
        assert command("models", tmp_path) == 0
        assert "config.json names" not in capsys.readouterr().out


def test_a_format_that_only_vllm_reads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(tmp_path, **INTERNVL, llm_config={"model_type": "qwen2", "num_hidden_layers": 24})
    for name in ("internvl_chat", tmp_path):
        assert command("models", name) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("Only vLLM reads the format internvl_chat. For all other uses, convert the checkpoint")
        assert "InternVLForConditionalGeneration (internvl), read by InternVLAdapter" in shown
        assert "  vLLM        tokenprune serve, with grid, " in shown


def test_a_type_that_only_vllm_reads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dots_ocr", "vision_config": {"num_hidden_layers": 42}}')
    for name in ("dots_ocr", "rednote-hilab/dots.ocr", tmp_path):
        assert command("models", name) == 0
        shown = capsys.readouterr().out
        assert "Only vLLM reads dots_ocr, not transformers: no command except `tokenprune serve` takes it." in shown
        (served,) = re.findall("  vLLM        tokenprune serve, with (.+)", shown)
        assert {"fopru", "mosaic", "pixelprune"} <= set(served.split(", "))
        assert not {"fastv", "flowcut", "backgroundpruning"} & set(served.split(", "))  # the last needs a CLS token


def test_strategies_are_those_that_patch_accepts() -> None:
    """The contract matrix tests patch() against the same rule: `served` in helpers/contract/cells.py."""
    llava = next(one for one in read_tested().values() if one.model_type == "llava")
    assert {"fopru", "fastv", "flowcut", "random"} <= set(strategies_of(llava))
    assert "cdpruner" not in strategies_of(llava)


@pytest.mark.skipif("granite4-vision" not in FAMILIES, reason="an older transformers")
def test_strategies_that_start_before_all_features_have_entered_are_not_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In Granite 4 Vision as published; the tests' model is shallower."""
    from transformers import Granite4VisionConfig

    model: Any = FAMILIES["granite4-vision"].build(n_layers=40)
    model.config.spatial_target_layers = Granite4VisionConfig().spatial_target_layers
    listed = strategies_of(read_tested()["granite4-vision"])
    made = [kind(keep_ratio=0.9) for kind in STRATEGIES.values()]
    inside = [one for one in made if isinstance(one, StagedStrategy) and one.stages(40)]
    assert len(inside) > 5
    for strategy in inside:
        assert name_of(type(strategy)) not in listed
        with pytest.raises(UnsupportedError):
            tokenprune.patch(model, strategy)
    assert command("models", "granite4_vision") == 0
    shown = capsys.readouterr().out
    assert "  inside      the language model only from decoder layer 21 on, such as fastv:layer=21" in shown
    with tokenprune.patch(model, "fastv:layer=21", keep_ratio=0.9):
        pass
