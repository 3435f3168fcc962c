"""`tokenprune serve` in a separate process."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import torch

from helpers.served.engine import HAS_V1

#: Seconds to wait until a server answers: three processes import vLLM.
PATIENCE = 600
#: vLLM's options for tiny models on a CPU, whose attention has no smaller blocks.
OPTIONS = ("--dtype", "float32", "--max-model-len", "512", "--enforce-eager", "--block-size", "32")
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # otherwise every server binds itself to the first core
    "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
    "HF_HUB_OFFLINE": "1",
}
#: Folders from which the processes of a server import `sitecustomize`, and what it imports.
INTERPRETING = (Path(__file__).parent / "cpu" / "site", Path(__file__).parents[2])


def environment() -> dict[str, str]:
    """Return a server's environment variables. From vLLM 0.34 on, its model runner needs Triton on a CPU too."""
    places = [] if HAS_V1 or torch.cuda.is_available() else map(str, INTERPRETING)
    path = os.pathsep.join([*places, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **ENVIRONMENT, **({"PYTHONPATH": path} if path else {})}


def command(model: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "tokenprune", "serve", "--model", str(model), *words]


@contextmanager
def serving(model: Path, *words: str) -> Iterator[str]:
    """Yield the URL of a server that answers. If it ends, the error contains its output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            [*command(model, *words), *OPTIONS, "--host", "127.0.0.1", "--port", str(port)],
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**environment(), "VLLM_CACHE_ROOT": os.environ.get("VLLM_CACHE_ROOT", cache)},
        )
        try:
            wait(process, f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}"
        except AssertionError as error:
            printed.seek(0)
            raise AssertionError(printed.read()[-5000:]) from error
        finally:
            process.terminate()
            process.wait(60)


def wait(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, "the server has ended"
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise AssertionError("the server does not answer")
