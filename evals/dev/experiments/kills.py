"""Kill `tokenprune eval` and `tokenprune optimize` at random moments, resume them, and compare with undisturbed runs.

    python -m tokenprune.evals.dev.experiments.kills --model PATH --data DIR --eval 50 --optimize 50 --output kills.json

Every run is killed several times before it may finish. The processes are forks of this one, so that no time is spent
importing torch and the kills hit the command itself.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenprune.__main__ import main as command
from tokenprune.evals.arguments.parser import script_parser
from tokenprune.evals.report import terminal
from tokenprune.evals.run import evaluate
from tokenprune.evals.search import optimize, plot

#: The modules that the commands import when they run: loaded once here instead of in every fork.
LOADED = evaluate, optimize, plot, terminal

#: How many times a run is killed before it may finish.
KILLS = 3
#: The fields that differ even between two undisturbed runs.
TIMES = frozenset({"seconds", "begun", "date", "datetime_start", "datetime_complete"})


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[str, Any]:
    """Return everything in a folder except times, regardless of the order of answers.

    Of files that are not JSON, such as the journal, only the names: a journal also has the trials that a kill cut
    short, and the settings file has every finished one.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jsonl"):
            lines = path.read_text(encoding="utf-8")
            parsed = [json.loads(lines)] if path.suffix == ".json" else map(json.loads, lines.splitlines())
            found[path.name] = sorted(json.dumps(without_times(one), sort_keys=True) for one in parsed)
        else:
            found[path.name] = None
    return found


def start(words: Sequence[str]) -> int:
    process = os.fork()
    if process == 0:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        try:
            command(list(words))
        except BaseException:  # noqa: BLE001  # the exit status reports it
            os._exit(1)
        os._exit(0)
    return process


def finish(words: Sequence[str]) -> float:
    begun = time.monotonic()
    _, status = os.waitpid(start(words), 0)
    if status:
        sys.exit(f"{' '.join(words)}: ended with {status}")
    return time.monotonic() - begun


class Moments:
    """Random moments within the length of a run, an estimate that follows the machine's load."""

    def __init__(self, draw: random.Random, length: float) -> None:
        self.draw, self.length = draw, length

    def disturbed(self, words: Sequence[str]) -> int:
        """Kill a command at random moments, then let it finish. Return how many kills hit it while it ran."""
        met = 0
        for _ in range(KILLS):
            process, end = start(words), time.monotonic() + self.draw.uniform(0, self.length)
            while time.monotonic() < end and os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                time.sleep(0.005)
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            met += status == signal.SIGKILL
            self.length *= 1.1 if status == signal.SIGKILL else 0.7
        finish(words)
        return met


def main(arguments: Sequence[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--model", required=True, metavar="PATH", help="model folder")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of questions")
    parser.add_argument("--eval", type=int, default=50, metavar="N", help="minimum number of kills of eval")
    parser.add_argument("--optimize", type=int, default=50, metavar="N", help="minimum number of kills of optimize")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--output", type=Path, default=Path("kills.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    draw, place = random.Random(options.seed), ["--model", options.model, "--data", options.data]
    searched = ["--trials", "6", "--questions", "3", "--keep-ratio", "0.3", "--split", "val"]
    compared = ["--strategy", "fopru", "--keep-ratio", "0.25", "--baselines", "unpruned", "--batch-tokens", "200"]
    found: dict[str, Any] = {"seed": options.seed}
    with tempfile.TemporaryDirectory() as scratch:
        for name, words, wanted in (("eval", compared, options.eval), ("optimize", searched, options.optimize)):
            folder = Path(scratch) / name
            end = "" if name == "eval" else "/settings.json"
            whole = [name, *place, *words, "--output", f"{folder / 'whole'}{end}"]
            finish(whole)
            lengths = finish([*whole[:-1], f"{folder / 'again'}{end}"])
            equal = contents(folder / "again") == contents(folder / "whole")
            drawn = Moments(draw, lengths)
            moments = alive = runs = differing = 0
            while alive < wanted:
                here = folder / str(runs)
                alive += drawn.disturbed([*whole[:-1], f"{here}{end}"])
                differing += contents(here) != contents(folder / "whole")
                moments, runs = moments + KILLS, runs + 1
                found[name] = {
                    "killed": alive, "finished before the kill": moments - alive, "runs": runs,
                    "runs that differ": differing,
                    "seconds undisturbed": round(lengths, 2), "undisturbed runs are equal": equal,
                }  # fmt: skip
                options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
