"""Run the pieces of `make gpu`. One that has passed is not run again, and one that was stopped after its nine minutes
goes on from what its command has stored."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from tokenprune.errors import SettingError
from tokenprune.evals.arguments.parser import script_parser
from tokenprune.evals.cli.errors import plain_errors
from tokenprune.evals.dev.gpu.pieces import PIECES, Piece
from tokenprune.evals.storage import files
from tokenprune.evals.storage.provenance import device_name, versions

SECONDS = 540
#: Characters of a command's output that its file holds.
TAIL = 4000


def run(piece: Piece, values: dict[str, str], on_cpu: bool) -> dict[str, Any]:
    """Run a piece, and whatever it starts, for at most `SECONDS`. Return what its file holds."""
    command = piece.command.format(**values, sizes=piece.on_cpu if on_cpu else piece.on_gpu)
    begin, printed = time.monotonic(), Path(values["out"]) / f"{piece.name}.log"
    with printed.open("wb") as log:
        process = subprocess.Popen(["bash", "-c", command], stdout=log, stderr=log, start_new_session=True)
        try:
            status: int | str = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            status = f"stopped after {SECONDS} s"
        finally:
            stop(process)
    return {
        "piece": piece.name,
        "status": status,
        "seconds": round(time.monotonic() - begin, 1),
        "device": device_name(torch.device("cpu" if on_cpu else "cuda")),
        "versions": versions(),
        "command": command,
        "output": printed.read_text(errors="replace")[-TAIL:],
    }


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a command and the servers that it has started."""
    for number in [signal.SIGTERM] * 10 + [signal.SIGKILL]:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        process.poll()
        time.sleep(0.5)


def missing(piece: Piece) -> list[str]:
    return [name for name in piece.needs if shutil.which(name) is None and find_spec(name) is None]


def chosen(names: list[str], on_cpu: bool) -> list[Piece]:
    """Return the pieces with these names. Raises SettingError for unknown ones, and if there is no GPU."""
    by_name = {piece.name: piece for piece in PIECES}
    if unknown := [name for name in names if name not in by_name]:
        raise SettingError(f"there is no piece {unknown[0]!r}; there are: {', '.join(by_name)}.")
    if not on_cpu and not torch.cuda.is_available():
        raise SettingError("torch sees no GPU here. Add --cpu to run the pieces with tiny sizes on a CPU.")
    return [by_name[name] for name in names or by_name]


@plain_errors()
def main() -> int:
    parser = script_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="PIECE", help="pieces to run (default: all)")
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on a CPU")
    parser.add_argument("--vllm", default=sys.executable, metavar="PYTHON", help="interpreter with vLLM")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), metavar="DIR", help="folder for the results")
    options = parser.parse_args()
    pieces = chosen(options.names, options.cpu)
    options.output.mkdir(parents=True, exist_ok=True)
    device = "cpu" if options.cpu else "cuda"
    values = {"python": sys.executable, "vllm": options.vllm, "out": str(options.output), "device": device}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that `stop` is reached
    failed = 0
    for piece in pieces:
        file = options.output / f"{piece.name}.json"
        if file.is_file() and json.loads(file.read_text())["status"] == 0:
            print(f"{piece.name}: passed before", flush=True)
        elif lacking := missing(piece):
            print(f"{piece.name}: left out, because {' and '.join(lacking)} cannot be found", flush=True)
        else:
            found = run(piece, values, options.cpu)
            files.replace(file, json.dumps(found, indent=1) + "\n")
            failed += found["status"] != 0
            print(f"{piece.name}: {found['status'] or 'passed'}, {found['seconds']} s, {file}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
