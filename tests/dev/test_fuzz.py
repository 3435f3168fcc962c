"""The fuzz finds no failure in 200 draws, finds deliberate faults, and survives being killed."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenprune.engine import prefill
from tokenprune.evals.dev.fuzz import __main__ as command
from tokenprune.evals.dev.fuzz.draw import draw
from tokenprune.evals.dev.fuzz.families import FAMILIES
from tokenprune.evals.dev.fuzz.log import counts
from tokenprune.evals.dev.fuzz.strategies import NAMES
from tokenprune.sequence.packing import Packing

SEED = 1616


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_dropping_equals_masking_in_200_draws() -> None:
    lines = [draw(SEED, index).line() for index in range(200)]
    failed = [(line["index"], line["reason"]) for line in lines if line["outcome"] == "failed"]
    assert not failed, f"replay with: make fuzz's command, --seed {SEED} --only {failed[0][0]}"
    assert counts(lines)["ok"] > 140
    assert counts(lines)["upstream"] < 10
    assert {line["family"] for line in lines} == set(FAMILIES)
    assert {line["strategy"] for line in lines} == set(NAMES)


@contextmanager
def shifted_ids() -> Iterator[None]:
    """Number the later half of a pruned prompt one too high."""
    right = Packing.gather_ids

    def wrong(self: Packing, ids: Any) -> Any:
        gathered = right(self, ids)
        length = gathered.shape[-1]
        return gathered + (torch.arange(length) >= length // 2)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Packing, "gather_ids", wrong)
        yield


@contextmanager
def exchanged_token() -> Iterator[None]:
    """Replace one kept visual token by its dropped neighbour."""
    right = prefill.prune_prompt

    def wrong(prompt: Any, dropped: Any, chosen: Any) -> Packing:
        packing = right(prompt, dropped, chosen)
        columns = packing.columns.clone()
        for row, gone in enumerate(dropped):
            for place in range(columns.shape[1]):
                following = int(columns[row, place]) + 1
                if bool(packing.valid[row, place]) and following < len(gone) and bool(gone[following]):
                    columns[row, place] = following
                    break
        return replace(packing, columns=columns)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prefill, "prune_prompt", wrong)
        yield


@contextmanager
def forgotten_shift() -> Iterator[None]:
    """After a prompt with compact position IDs, number later tokens as if nothing had been dropped."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prefill, "id_shift", lambda before, after, real: torch.zeros(len(real), dtype=torch.long))
        yield


@contextmanager
def unmerged() -> Iterator[None]:
    """Merge nothing, although the report says so."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prefill, "merge_dropped", lambda embeds, chosen: embeds)
        yield


@pytest.mark.parametrize(
    ("broken", "least"), [(shifted_ids, 12), (exchanged_token, 12), (forgotten_shift, 3), (unmerged, 2)]
)
def test_what_is_broken_on_purpose_is_found(broken: Callable[[], Any], least: int) -> None:
    outcomes = Counter(draw(SEED, index, broken).outcome for index in range(30))
    assert outcomes["failed"] >= least, outcomes


def test_a_failed_draw_says_how_to_replay_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(seed: int, index: int) -> Any:
        return draw(seed, index, exchanged_token)

    monkeypatch.setattr(command, "draw", wrong)
    assert command.main(["--draws", "6", "--seed", str(SEED), "--output", str(tmp_path / "run.jsonl")]) == 1
    printed = capsys.readouterr().out
    assert f"python -m tokenprune.evals.dev.fuzz --seed {SEED} --only " in printed
    index = printed.split("--only ")[1].split()[0]
    assert command.main(["--seed", str(SEED), "--only", index]) == 1
    monkeypatch.undo()
    assert command.main(["--seed", str(SEED), "--only", index]) == 0


def test_a_killed_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    """Its last line is broken."""
    output = tmp_path / "run.jsonl"
    options = ["--seed", str(SEED), "--output", str(output), "--draws"]
    assert command.main([*options, "7"]) == 0
    output.write_bytes(output.read_bytes() + b'{"seed": 1616, "ind')
    assert command.main([*options, "10"]) == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [without_rounding(line) for line in lines] == [without_rounding(draw(SEED, n).line()) for n in range(10)]


def without_rounding(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line without its time and what rounding changes. Rounding differs between processes, and what the "any"
    strategies keep depends on every digit."""
    return {key: value for key, value in line.items() if key not in ("seconds", "worst", "n_kept")}


def test_the_page_tells_what_was_stored() -> None:
    results = Path(__file__).parents[2] / "evals/results"
    stored = json.loads((results / "fuzz.json").read_text(encoding="utf-8"))
    page = (results / "trust.md").read_text(encoding="utf-8")
    assert f"{stored['draws']:,} draws" in page
    assert all(f"{count:,} {outcome}" in page for outcome, count in stored["outcomes"].items())
    assert sum(stored["outcomes"].values()) == stored["draws"]
