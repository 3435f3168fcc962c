"""What `tokenprune eval --engine vllm` refuses before an engine starts, without vLLM."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.files.evals import saved, write_vqav2
from helpers.served.stored import save
from helpers.tiny import tiny_llava

from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.evals import evaluate
from tokenprune.evals.models.loading import load_processor
from tokenprune.evals.run.engines import backend, offline
from tokenprune.evals.run.engines.engine import EngineError, Prompt, Reply
from tokenprune.evals.run.engines.offline import Offline
from tokenprune.evals.run.setups import make_setups
from tokenprune.evals.storage.provenance import config_digest, processor_digest


@pytest.fixture
def model(tmp_path: Path) -> str:
    return saved(tiny_llava(), tmp_path)


@pytest.fixture
def windowed(tmp_path: Path) -> str:
    """A Qwen2.5-VL in which some vision layers attend within windows."""
    save("qwen2_5_vl", tmp_path / "qwen")
    return str(tmp_path / "qwen")


def test_setups_are_grouped_by_engine(model: str) -> None:
    groups = Offline(model, "auto", {}).groups(make_setups(["fopru", "grid"], [0.5, 0.25], ["original"]))
    assert [[(setup.label, setup.keep_ratio) for setup in group] for group in groups] == [
        [("unpruned", 1.0), ("FoPru", 0.5), ("FoPru", 0.25)],
        [("Grid", 0.5), ("Grid", 0.25)],
    ]


def test_a_composed_strategy_needs_one_engine_for_all_ratios(model: str) -> None:
    groups = Offline(model, "auto", {}).groups(
        make_setups(["divprune:keep_ratio=0.5+fopru"], [0.25, 0.1], ["original"])
    )
    assert [len(group) for group in groups] == [3]  # including the unpruned one


@pytest.mark.parametrize("strategy", ["fastv", "par", "tome", "fopru:mass=0.5"])
def test_a_later_strategy_is_refused_before_the_first_engine_starts(model: str, strategy: str) -> None:
    with pytest.raises(UnsupportedError, match="cannot run inside vLLM"):
        Offline(model, "auto", {}).groups(make_setups(["fopru", strategy], [0.5]))


def test_a_layer_that_vllm_does_not_give_is_refused_before_the_first_engine_starts(windowed: str) -> None:
    setups = make_setups(["fopru", "fopru:layer=-2"], [0.5], ["original"])
    with pytest.raises(UnsupportedError, match="layer=-2 of this vision tower attends within small windows"):
        Offline(windowed, "auto", {}).groups(setups)


def test_default_strategies_are_those_that_vllm_can_run(windowed: str) -> None:
    said = list[str]()
    asked = backend.EngineBackend(Offline(windowed, "auto", {}), windowed, *load_processor(windowed), "stop")
    assert list(asked.strategies(None, said.append)) == ["grid", "fopru", "mosaic"]
    (line,) = said
    assert line.startswith("fopru instead of fopru:layer=-2: layer=-2 of this vision tower attends within small")


def test_what_is_not_answered_is_no_empty_answer(model: str) -> None:
    """vLLM returns unanswered requests among the others, for instance if its caches have lost an image."""

    def generate(prompts: list[Any], *args: Any, **options: Any) -> list[Any]:
        ended = [("yes", "stop"), ("", "error"), ("a long answ", "length")]
        answers = [SimpleNamespace(text=text, finish_reason=reason) for text, reason in ended]
        return [SimpleNamespace(outputs=[answer], prompt_token_ids=[1, 2]) for answer in answers]

    engine = Offline(model, "auto", {})
    engine._llm = SimpleNamespace(generate=generate, get_default_sampling_params=SimpleNamespace)
    (setup,) = make_setups(["grid"], [0.25], ["original"], [])
    first, second, third = engine.ask([Prompt([], "", "a chat", 8)] * 3, setup)
    assert (first, third) == (Reply("yes", 2), Reply("a long answ", 2))
    assert isinstance(second, EngineError)
    assert "ended the request with finish_reason 'error'" in str(second)


def test_what_changes_its_greedy_answers_identifies_an_engine(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"eos_token_id": [2, 7], "temperature": 0.5, "repetition_penalty": 1.1}
    own = SimpleNamespace(
        hf_config=SimpleNamespace(architectures=["A"]), dtype=torch.float32, try_get_generation_config=lambda: settings
    )
    config = SimpleNamespace(model_config=own, device_config=SimpleNamespace(device_type="cpu"))
    engine = Offline(model, "auto", {})
    engine._llm = SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=config))
    monkeypatch.setattr(offline, "import_module", lambda name: SimpleNamespace(__version__="0"))
    made = backend.EngineBackend(engine, "its name", *load_processor(model), "stop")
    found = made.identity()["model"]
    assert found["generation"] == {"eos_token_id": [2, 7], "repetition_penalty": 1.1}
    assert {**found, "generation": {}} == {
        **{"class": "A", "weights": "its name", "dtype": "float32", "device": "cpu", "generation": {}},
        **{"config": config_digest(made.config), "processor": processor_digest(made.processor)},
    }


def test_a_model_that_gets_no_images_in_vllm(tmp_path: Path) -> None:
    save("llava_next_video", tmp_path)
    with pytest.raises(UnsupportedError, match="vLLM takes only videos of models of type 'llava_next_video'"):
        Offline(str(tmp_path), "auto", {})


@pytest.mark.parametrize("name", ["model", "dtype", "hf_overrides"])
def test_options_that_the_command_has_already(model: str, name: str) -> None:
    with pytest.raises(SettingError, match=rf"engine-options\): '{name}' follows from --\w+\. Leave it out"):
        Offline(model, "auto", {name: "x"})


def test_a_device_map_is_for_this_process(model: str, tmp_path: Path) -> None:
    write_vqav2(tmp_path / "data")
    with pytest.raises(SettingError, match=r"--device-map\) spreads a model in this process: .*tensor_parallel_size"):
        evaluate(model, data=tmp_path / "data", output=tmp_path / "run", engine="vllm", device_map="auto")


def test_without_vllm(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong options are reported even if vLLM is not installed."""
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r'not installed\. .*: pip install "tokenprune-vlm\[vllm\]"'):
        backend.engine_backend("vllm", model, "auto", {}, "stop")
    with pytest.raises(SettingError, match="Leave it out"):
        backend.engine_backend("vllm", model, "auto", {"dtype": "half"}, "stop")
