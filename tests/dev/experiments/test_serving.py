"""The command that times servers asks each at every keep ratio, and counts what they tell; how fast they are is not
tested."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

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
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers: dict[str, Any] = {
                "/v1/models": {"data": [{"id": str(tmp_path)}]},
                "/version": {"version": "0.32.0"},
                "/tokenprune": {"settings": {"strategy": "grid"}, "dtype": "bfloat16", "device": "cpu"},
            }
            self._send(METRICS if self.path == "/metrics" else json.dumps(answers[self.path]))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert request["model"] == str(tmp_path)
            asked.append(request["mm_processor_kwargs"]["keep_ratio"])
            self._send("{}")

        def _send(self, body: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


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
    # One to warm up; then in each round the first token, and two requests of the one client.
    assert [asked.count(ratio) for ratio in benchmark.KEEP_RATIOS] == [7, 7, 7, 7]
    assert "unpruned (engine of grid)" in capsys.readouterr().out
