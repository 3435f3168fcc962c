"""`tokenprune eval --engine`: vLLM, as an `LLM` and at a URL, gives the same answers as the model in this process."""

# pyright: reportMissingImports=false

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import needs_vllm
from helpers.served.server import ENVIRONMENT, serving
from helpers.served.stored import save

from tokenprune.evals import evaluate
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.run.engines import backend, server
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.run_folder import RunFolder

pytestmark = [needs_vllm, pytest.mark.slow]

#: Options of an engine for the bundled or a tiny model on a CPU.
OPTIONS = {"max_model_len": 512, "enforce_eager": True, "block_size": 32}


def here(model: Path, data: Path, output: Path, *words: str, strategy: str = "fopru:layer=-2") -> list[TaskResult]:
    """Run the model in a separate process, in which vLLM has not changed transformers, and return the rows."""
    command = [sys.executable, "-m", "tokenprune", "eval", "--model", str(model), "--data", str(data)]
    command += ["--dtype", "float32", "--output", str(output), "--strategy", strategy, *words]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return RunFolder(output).results()


def check_same(served: Path, alone: Path) -> None:
    """Check that two runs have the same rows and answers."""
    for row, other in zip(RunFolder(served).results(), RunFolder(alone).results(), strict=True):
        assert (row.key, row.task, row.accuracy) == (other.key, other.task, other.accuracy)
        assert (row.n_visual, row.n_kept, row.scores) == (other.n_visual, other.n_kept, other.scores)
        assert row.versions["vllm"]
    answers, others = (
        {key: one.text for key, one in RunFolder(folder).answers().items()} for folder in (served, alone)
    )
    assert answers == others


def test_an_engine_in_this_process(tmp_path: Path) -> None:
    save("llava-clip", tmp_path / "model")
    words = "--keep-ratio", "0.5", "0.25", "--baselines", "unpruned", "--limit", "5"
    here(tmp_path / "model", SCENES, tmp_path / "here", *words)
    rows = evaluate(
        str(tmp_path / "model"),
        data=SCENES,
        limit=5,
        output=tmp_path / "served",
        strategies=["fopru:layer=-2"],
        keep_ratios=[0.5, 0.25],
        baselines=["unpruned"],
        dtype="float32",
        engine="vllm",
        engine_options=OPTIONS,
    )
    assert {row.position_ids for row in rows} == {"original", "compact"}
    check_same(tmp_path / "served", tmp_path / "here")


def test_patches_that_are_not_encoded(tmp_path: Path) -> None:
    """An image then keeps fewer tokens than its budget; a keep ratio of 1 is everything that the pixel selection
    leaves."""
    save("qwen2_5_vl", tmp_path / "model")
    strategy = "pixelprune:threshold=0.35"
    words = "--keep-ratio", "0.3", "1", "--position-ids", "original", "--baselines", "unpruned", "--limit", "4"
    here(tmp_path / "model", SCENES, tmp_path / "here", *words, strategy=strategy)
    options: dict[str, Any] = {"keep_ratios": [0.3, 1.0], "position_ids": ["original"], "baselines": ["unpruned"]}
    rows = evaluate(
        str(tmp_path / "model"),
        data=SCENES,
        limit=4,
        output=tmp_path / "served",
        strategies=[strategy],
        dtype="float32",
        engine="vllm",
        engine_options=OPTIONS,
        **options,
    )
    check_same(tmp_path / "served", tmp_path / "here")
    kept = {row.keep_ratio: row.n_kept / row.n_visual for row in rows if row.strategy != "unpruned"}
    assert kept[0.3] < kept[1.0] < 0.95


class OpenAI(server.Server):
    """A server that is queried with the openai package."""

    def _json(self, path: str, request: dict[str, Any] | None = None) -> Any:
        if request is None:
            return super()._json(path)
        import openai

        known = {name: request[name] for name in ("model", "messages", "temperature", "max_tokens")}
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0) as client:
            answer = client.chat.completions.create(
                **known, extra_body={name: value for name, value in request.items() if name not in known}
            )
        return answer.model_dump()


@pytest.fixture(params=["original", "compact"])
def bundled(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A server with the bundled model, and its kind of position IDs."""
    words = "--strategy", "fopru:layer=-2", "--keep-ratio", "0.25", "--position-ids", request.param
    with serving(MODEL, *words, "--disable-uvicorn-access-log") as url:
        yield url, request.param


def test_the_bundled_model(bundled: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 questions of each task, eight at once, give the same answers and thus the same accuracies."""
    url, position_ids = bundled
    monkeypatch.setattr(backend, "Server", OpenAI)
    options: dict[str, Any] = {"data": SCENES, "limit": 200, "keep_ratios": [0.25]}
    options |= {"strategies": ["fopru:layer=-2"], "position_ids": [position_ids], "baselines": []}
    rows = evaluate(str(MODEL), output=tmp_path / "served", engine=url, **options)
    assert [(row.task, row.n, row.n_kept) for row in rows] == [("rec", 200, 64), ("vqa", 200, 64)]
    words = "--keep-ratio", "0.25", "--position-ids", position_ids, "--baselines", "none", "--limit", "200"
    here(MODEL, SCENES, tmp_path / "here", *words)
    check_same(tmp_path / "served", tmp_path / "here")
    print([(row.task, row.accuracy) for row in rows])


def test_the_command(tmp_path: Path) -> None:
    """For wrong engine options, vLLM raises an error, and nothing is written."""
    save("llava-clip", tmp_path / "model")
    command = [sys.executable, "-m", "tokenprune", "eval", "--model", str(tmp_path / "model"), "--engine", "vllm"]
    command += ["--output", str(tmp_path / "run"), "--strategy", "grid"]
    command += ["--engine-options", '{"maximum": 5}']
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ENVIRONMENT)
    assert ended.returncode != 0
    assert "unexpected keyword argument 'maximum'" in ended.stderr
    assert not (tmp_path / "run").exists()
