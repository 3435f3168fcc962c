"""One draw: a model, a strategy, a conversation and a mode, run patched and compared with masking."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from random import Random
from typing import Any, cast

import torch
from torch import Tensor

import tokenprune
from tokenprune import Strategy
from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.evals.dev.fuzz.families import FAMILIES, Family
from tokenprune.evals.dev.fuzz.modes import Chunk, Mode, Positions, draw_mode, run
from tokenprune.evals.dev.fuzz.oracle import Replay, compact, dropped_at, place, worst_difference
from tokenprune.evals.dev.fuzz.strategies import IN_TOWER, NAMES, OWN, make
from tokenprune.strategy import ScoreStrategy, StagedStrategy

TOLERANCE = 2e-5  # of the contract, in float32
PER_MODEL = 5  # draws per model
Outcome = str  # "ok", "refused", "upstream" or "failed"


@dataclass
class Result:
    """A draw and its outcome.

    outcome: "ok"; "refused" by `patch` or by the strategy's own checks, with `reason`; "upstream" if the unpatched
        model fails in the same mode, or differs between this mode and another; "failed".
    """

    seed: int
    index: int
    family: str
    strategy: str
    model: str
    settings: str = ""
    mode: str = ""
    kind: str = ""
    cache: str = ""
    form: str = ""
    padding: str = ""
    rows: int = 0
    position_ids: str = ""
    outcome: Outcome = "failed"
    worst: float | None = None
    n_visual: int = 0
    n_kept: int = 0
    reason: str = ""
    seconds: float = field(default=0.0)

    def line(self) -> dict[str, Any]:
        return asdict(self)


@lru_cache(maxsize=1)
def model_of(seed: int, group: int) -> tuple[str, Family]:
    rng = Random(f"model {seed} {group}")
    name = list(FAMILIES)[group % len(FAMILIES)]
    return name, Family(name, rng)


def draw(seed: int, index: int, broken: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Result:
    """Return the result of a draw, which its seed and index determine.

    broken: a context in which the library is deliberately wrong, for the negative control.
    """
    start = time.perf_counter()
    name, family = model_of(seed, index // PER_MODEL)
    rng = Random(f"draw {seed} {index}")
    # The oracle knows pruning in the tower only for LLaVA. It is drawn rarely, so it prunes in the tower often.
    others = [name for name in NAMES if name not in IN_TOWER]
    strategy_name = rng.choice((*NAMES, *IN_TOWER * 8) if name == "llava" else others)
    result = Result(seed, index, name, strategy_name, f"{family.attention} {family.settings}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _run(result, family, strategy_name, rng, broken)
        except Exception as error:  # noqa: BLE001  # recorded as a failure of this draw
            result.outcome, result.reason = "failed", f"{type(error).__name__}: {error}"
        finally:
            tokenprune.unpatch(family.model)
    result.seconds = round(time.perf_counter() - start, 3)
    return result


def _run(result: Result, family: Family, name: str, rng: Random, broken: Callable[[], Any]) -> None:
    result.position_ids = position_ids = rng.choice(["original", "original", "compact"])
    try:
        strategy = make(name, rng, family.layers)
        result.settings = repr(strategy)
        tokenprune.patch(family.model, strategy, position_ids=cast(Any, position_ids)).remove()
    except (SettingError, UnsupportedError) as error:
        result.outcome, result.reason = "refused", reason_class(error)
        return
    mode = draw_mode(family, rng)
    if mode.beams > 1 and "text_attention" in strategy.needs:  # without a cache, each beam would keep different tokens
        mode.cache = "dynamic"
    result.mode, result.kind, result.cache = str(mode), mode.kind, mode.cache
    result.form, result.padding, result.rows = mode.form, mode.padding, len(mode.turns[0].ids)
    recorder = Positions(family.twin.get_decoder())
    try:
        baseline = run(family, family.twin, mode)
    except Exception as error:  # noqa: BLE001  # pruning need not mend errors of the unpatched model
        result.outcome, result.reason = "upstream", reason_class(error)
        return
    finally:
        recorder.remove()
    ids = incoming_ids(recorder.calls, baseline, mode)
    with broken(), tokenprune.patch(family.model, strategy, position_ids=cast(Any, position_ids)) as handle:
        chunks = run(family, family.model, mode, handle)
    result.worst = compared(result, family, strategy, mode, chunks, ids)
    result.outcome = "ok" if result.worst < TOLERANCE else "failed"
    if result.outcome == "failed":
        baseline = run(family, family.model, mode)  # without the patch, and with its own attention again
        itself = worst_difference(baseline, Replay(family, baseline, [], ids).logits(), _nothing(baseline))
        result.reason = f"logits differ by {result.worst:.1e}, without pruning by {itself:.1e}"
        if not itself < TOLERANCE and not result.worst > 10 * itself:
            result.outcome, result.reason = "upstream", f"the unpatched model differs from itself by {itself:.1e}"


def compared(result: Result, family: Family, strategy: Strategy, mode: Mode, chunks: list[Chunk], ids: Tensor) -> float:
    """Return the largest difference from the oracle. Raises AssertionError if a report contradicts the contract."""
    placed = place(family, chunks, mode.beams)
    shape = len(chunks[0].ids), sum(chunk.ids.shape[1] for chunk in chunks)
    entering = dropped_at(placed, shape, -1)
    if result.position_ids == "compact":
        ids = compact(ids, chunks, entering)
    for seen in placed:
        result.n_visual += seen.image.n_visual
        result.n_kept += seen.image.n_kept
        check_budget(result, family, strategy, seen.image)
        expected = ids[:, seen.row, seen.columns[seen.image.kept]]
        reported = seen.image.position_ids
        reported = reported[None] if reported.ndim == 1 else reported[-3:]
        assert torch.equal(reported.expand_as(expected), expected), "the reported position IDs are wrong"
    expected = Replay(family, chunks, placed, ids).logits()
    # Without a cache, every step prunes the prompt again, and the report describes the last one.
    again = mode.kind == "generate" and mode.cache == "none" and "text_attention" in strategy.needs
    return worst_difference(chunks, expected, dropped_at(placed, shape, family.layers), only_last=again)


def check_budget(result: Result, family: Family, strategy: Strategy, image: tokenprune.ImageReport) -> None:
    allowed = strategy.budget(image.n_visual)
    adapts = isinstance(strategy, ScoreStrategy) and not strategy.all_enter and strategy.mass is not None
    exact = result.strategy not in OWN and not adapts
    assert image.n_kept == allowed if exact else image.n_kept <= allowed, (
        f"kept {image.n_kept}, the budget is {allowed}"
    )
    stages = strategy.stages(family.layers) if isinstance(strategy, StagedStrategy) else ()
    assert len(stages) in (len(image.stages), 0) or image.n_kept == image.n_visual, "stages are missing"
    for stage, done in zip(stages, image.stages, strict=False):
        allowed = min(stage.budget(image.n_visual), image.n_kept)
        assert len(done.kept) <= allowed, f"stage {stage.layer} left {len(done.kept)}, the budget is {allowed}"


def incoming_ids(calls: list[Tensor], chunks: list[Chunk], mode: Mode) -> Tensor:
    """Return the position IDs (components, batch, columns) that the unpatched model has in this mode."""
    whole = calls[-1] if mode.cache == "none" else torch.cat(calls, -1)
    whole = whole[:, :: mode.beams]
    n_columns = sum(chunk.ids.shape[1] for chunk in chunks)
    assert whole.shape[1:] == (len(chunks[0].ids), n_columns), "the language model got a different number of columns"
    return whole


def _nothing(chunks: list[Chunk]) -> Tensor:
    return torch.zeros(len(chunks[0].ids), sum(chunk.ids.shape[1] for chunk in chunks), dtype=torch.bool)


def reason_class(error: Exception) -> str:
    """Return an error's text without names and numbers, so that similar errors are counted together."""
    text = re.sub(r"\s+", " ", str(error))
    text = re.sub(r"^\w+(?= prunes|: )", "…", text)
    text = re.sub(r"[\w.]+\(.*?\)|\[.*?\]|'[^']*'|\b[\d.]+\b|\b\w+ForConditionalGeneration\b", "…", text)
    return f"{type(error).__name__}: {text[:75]}"
