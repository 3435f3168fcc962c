"""Time our prefills and those of published packages on the same weights and image, in turn, one process per package.

    python evals/dev/peers/speed/run.py OLD_PYTHON KVPRESS_PYTHON
    python evals/dev/peers/speed/run.py OLD_PYTHON KVPRESS_PYTHON --batch 16 --return-memory

OLD_PYTHON and KVPRESS_PYTHON are the interpreters of environments with the packages: see evals/results/peers.md. Every
round times each prefill once, from pixels to the first logits, while the other processes sleep. Ratios are taken within
rounds, which are written to one file per batch size in evals/results/data.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from tokenprune.evals.bench.record import cpu
from tokenprune.evals.bench.timing.memory import ENVIRONMENT
from tokenprune.evals.storage import files

HERE = Path(__file__).resolve().parent
STORED = HERE.parents[2] / "results" / "data"
#: glibc's setting that makes processes return large blocks as soon as they free them.
RETURNING = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
METHODS = ("unpruned", "VisionZip", "FlowCut")


class Server:
    """A process that runs serve.py, with the prefills of one `package`.

    environment: variables to set for the process, in addition to our own.
    """

    def __init__(self, package: str, command: Sequence[str], environment: Mapping[str, str] = ENVIRONMENT) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )
        self.package, hello = package, self._line()
        self.prefills, self.versions = hello["prefills"], hello["versions"]

    def ask(self, prefill: str, batch: int = 1) -> dict[str, Any]:
        """Time a prefill. Raises RuntimeError if the process has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{batch} {prefill}\n")
        self._process.stdin.flush()
        return self._line()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self._process.args} ended with exit code {self._process.wait()}. Its errors are above."
            )
        return json.loads(line)


def servers(folder: Path, old_python: str, kvpress_python: str, dtype: str) -> list[tuple[str, list[str]]]:
    """Return the package and the command of each process."""
    given = [str(folder), dtype]
    old = [("LLaVA", [old_python, str(HERE / "llava_side.py"), *given, method]) for method in METHODS]
    return [
        ("tokenprune", [sys.executable, str(HERE / "newest_side.py"), "serve", *given]),
        *old,
        ("kvpress", [kvpress_python, str(HERE / "kvpress_side.py"), *given]),
    ]


def measure(running: Sequence[Server], rounds: int, path: Path, about: Mapping[str, Any]) -> None:
    """Time all prefills, and write `path` after each round. The first calls, of one prompt each, do not count. Each
    round reverses the order of the one before. Cases are named "package: prefill"."""
    cases = [(f"{server.package}: {prefill}", server, prefill) for server in running for prefill in server.prefills]
    for _, server, prefill in track(cases, "first calls"):
        server.ask(prefill)
    measured, facts = [], {}
    for turn in track(range(rounds), "rounds"):
        order = cases if turn % 2 else cases[::-1]
        answers = {name: server.ask(prefill, about["batch"]) for name, server, prefill in order}
        facts = facts or {
            "about": about,
            "versions": {server.package: server.versions for server in running},
            "kv_cache_bytes": {name: answers[name]["kv_cache_bytes"] for name, _, _ in cases},
            "logits_difference": _differences({name: answers[name]["logits"] for name, _, _ in cases}),
        }
        moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
        measured.append({"moment": moment, "seconds": {name: answers[name]["seconds"] for name, _, _ in cases}})
        files.replace(path, json.dumps({**facts, "rounds": measured}, indent=1) + "\n")


def _differences(logits: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the distance of each case's logits from those of our unpruned model, relative to the norm of the
    latter."""
    reference = torch.tensor(logits["tokenprune: unpruned"])
    return {
        name: float((torch.tensor(values) - reference).norm() / reference.norm()) for name, values in logits.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old_python", help="the interpreter with LLaVA's, VisionZip's and FlowCut's packages")
    parser.add_argument("kvpress_python", help="the interpreter with kvpress")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--return-memory",
        action="store_true",
        help="make processes return freed memory at once, which takes time; batches of 16 need it to fit in 24 GB",
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    output = options.output or STORED / ("peers_speed" + f"_{options.batch}" * (options.batch > 1) + ".json")
    about = {
        "batch": options.batch,
        "returns_memory": options.return_memory,
        "dtype": options.dtype,
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        subprocess.run([sys.executable, HERE / "newest_side.py", "make", folder], check=True)
        commands = servers(folder, options.old_python, options.kvpress_python, options.dtype)
        environment = RETURNING if options.return_memory else ENVIRONMENT
        running = [stack.enter_context(Server(*each, environment)) for each in commands]
        measure(running, options.rounds, output, about)


if __name__ == "__main__":
    main()
