"""See the package."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

from tokenprune.evals.arguments.parser import at_least, script_parser
from tokenprune.evals.dev.experiments import serving
from tokenprune.evals.dev.experiments.serving.model import operations
from tokenprune.evals.dev.tables.speed.serving import table
from tokenprune.evals.run.engines.server import Server, data_url
from tokenprune.evals.storage.provenance import versions
from tokenprune.selection import budget

KEEP_RATIOS = (1.0, 0.5, 0.25, 0.1)
CLIENTS = (1, 4, 16)
N_NEW, N_WORDS, N_VISUAL = 16, 20, 576
#: Seeds of the images. Every image is new, so that none is in a cache.
_images = count()


class Measured(Server):
    """A server whose answers can be timed."""

    def first_token(self, keep_ratio: float) -> float:
        """Return the seconds from a request to its first token."""
        body = self._body(keep_ratio, 1)  # drawing and encoding the image is the client's time
        start = time.perf_counter()
        self._json("/v1/chat/completions", body)
        return time.perf_counter() - start

    def per_second(self, keep_ratio: float, n_clients: int, n_requests: int) -> tuple[float, float]:
        """Return the requests answered per second, and the largest number of KV blocks in use."""
        bodies = [self._body(keep_ratio, N_NEW) for _ in range(n_requests)]
        start = time.perf_counter()
        with self._watching_blocks() as most, ThreadPoolExecutor(n_clients) as pool:
            list(pool.map(lambda body: self._json("/v1/chat/completions", body), bodies))
        return n_requests / (time.perf_counter() - start), most[0]

    def selection_seconds(self) -> tuple[float, float]:
        """Return the total seconds of selection so far, and the number of images."""
        text = self._metrics()
        return tuple(_value(text, f"tokenprune_{name}_total") for name in ("selection_seconds", "selected_images"))  # pyright: ignore[reportReturnType]

    def _body(self, keep_ratio: float, n_new: int) -> dict[str, Any]:
        pixels = np.random.default_rng(next(_images)).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        url = data_url(Image.fromarray(pixels).resize((336, 336)))
        text = " ".join(f"w{i}" for i in range(N_WORDS))
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": n_new,
            "ignore_eos": True,
            "mm_processor_kwargs": {"keep_ratio": keep_ratio},
        }

    @contextmanager
    def _watching_blocks(self) -> Iterator[list[float]]:
        """Yield a one-element list: the most KV blocks in use so far, read ten times a second."""
        done, most = threading.Event(), [0.0]
        n_blocks = float(re.findall(r'num_gpu_blocks="(\d+)"', self._metrics())[0])

        def watch() -> None:
            while not done.wait(0.1):
                most[0] = max(most[0], _value(self._metrics(), "vllm:kv_cache_usage_perc") * n_blocks)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield most
        finally:
            done.set()
            watcher.join()

    def _metrics(self) -> str:
        with urlopen(Request(f"{self.url}/metrics")) as response:
            return response.read().decode()


def _value(metrics: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", metrics, re.MULTILINE))


def measure(servers: dict[str, Measured], rounds: int, loads: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
    """Measure every server at every keep ratio in turn. Yield all rows so far after each round, one row per value."""
    for server in servers.values():
        for ratio in KEEP_RATIOS:
            server.first_token(ratio)
    rows: list[dict[str, Any]] = []
    for number in range(rounds):
        for ratio in KEEP_RATIOS:
            for name, server in servers.items():
                case = {"round": number, "strategy": name, "keep_ratio": ratio}
                print(case, flush=True)
                before = server.selection_seconds()
                rows.append({**case, "ttft": server.first_token(ratio)})
                selecting, images = (b - a for a, b in zip(before, server.selection_seconds(), strict=True))
                rows[-1]["selection"] = selecting / images if images else 0.0
                for n_clients in loads:
                    rate, blocks = server.per_second(ratio, n_clients, max(2, n_clients))
                    rows.append({**case, "clients": n_clients, "rate": rate, "blocks": blocks})
        yield rows


def bounds(model: Path) -> dict[str, float]:
    """Return, for each keep ratio, the floating-point operations of a prefill relative to the unpruned model's,
    including the vision tower."""
    whole = sum(operations(model, N_VISUAL, N_WORDS))
    return {str(r): sum(operations(model, budget(N_VISUAL, r, None), N_WORDS)) / whole for r in KEEP_RATIOS}


def main() -> None:
    parser = script_parser(serving.__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the model that the servers run")
    parser.add_argument("servers", nargs="+", metavar="URL", help="one server per strategy; Grid's selection is cheap")
    parser.add_argument(
        "--rounds", type=at_least(2), default=5, metavar="N", help="rounds; every case runs once in each"
    )
    parser.add_argument(
        "--clients", nargs="+", type=int, default=list(CLIENTS), metavar="N", help="numbers of concurrent clients"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write every value to")
    options = parser.parse_args()
    opened = [Measured(url, str(options.model)) for url in options.servers]
    servers = {server.described["settings"]["strategy"]: server for server in opened}
    about = {
        "bounds": bounds(options.model),
        "versions": {**versions(), "vllm": opened[0].version},
        **{name: opened[0].described[name] for name in ("dtype", "device")},
        "date": time.strftime("%Y-%m-%d"),
    }
    content: dict[str, Any] = {}
    for number, rows in enumerate(measure(servers, options.rounds, options.clients), 1):
        content = {"about": {**about, "rounds": number}, "rows": rows}
        options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(table(content))


if __name__ == "__main__":
    main()
