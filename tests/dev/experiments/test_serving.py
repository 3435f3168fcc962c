"""The command that times servers sends requests at every keep ratio to each, and reads their metrics. Times are not
tested."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.simulated.openai_server import JsonHandler, listening

from tokenprune.evals.dev.experiments.serving import __main__ as benchmark

METRICS = """\
vllm:cache_config_info{num_gpu_blocks="80"} 1.0
vllm:kv_cache_usage_perc{engine="0"} 0.5
tokenprune_selection_seconds_total 0.5
tokenprune_selected_images_total 4.0
"""


@pytest.fixture
def asked() -> list[float]:
    """The keep ratios of all requests."""
    return []


@pytest.fixture
def url(asked: list[float], tmp_path: Path) -> Iterator[str]:
    class Handler(JsonHandler):
        def do_GET(self) -> None:
            answers: dict[str, Any] = {
                "/v1/models": {"data": [{"id": str(tmp_path)}]},
                "/version": {"version": "0.32.0"},
                "/tokenprune": {"settings": {"strategy": "grid"}, "dtype": "bfloat16", "device": "cpu"},
            }
            self.send_text(METRICS if self.path == "/metrics" else json.dumps(answers[self.path]))

        def do_POST(self) -> None:
            request = self.read_json()
            assert request["model"] == str(tmp_path)
            asked.append(request["mm_processor_kwargs"]["keep_ratio"])
            self.send_json(200, {})

    with listening(Handler) as url:
        yield url


def test_a_server_is_timed(
    url: str, asked: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "bounds", lambda model: {str(ratio): ratio for ratio in benchmark.KEEP_RATIOS})
    file = tmp_path / "serving.json"
    words = [url, "--model", str(tmp_path), "--rounds", "2", "--clients", "1", "--output", str(file)]
    monkeypatch.setattr(sys, "argv", ["serving", *words])
    benchmark.main()
    content = json.loads(file.read_text(encoding="utf-8"))
    assert (content["about"]["versions"]["vllm"], content["about"]["rounds"]) == ("0.32.0", 2)
    assert {row["keep_ratio"] for row in content["rows"]} == set(benchmark.KEEP_RATIOS)
    assert {row["blocks"] for row in content["rows"] if "blocks" in row} <= {0.0, 40.0}
    # One request to warm up; then, in each round, one for the first token and two from the only client.
    assert [asked.count(ratio) for ratio in benchmark.KEEP_RATIOS] == [7, 7, 7, 7]
    assert "unpruned (engine of grid)" in capsys.readouterr().out
