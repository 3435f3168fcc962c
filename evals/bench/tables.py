"""Figures as tables, for the terminal and as Markdown."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, inf
from statistics import median

from rich.table import Table as RichTable

from tokenprune.evals.bench.cases import IDEAL
from tokenprune.evals.bench.figures import Figures, Median, Memory
from tokenprune.evals.bench.record import Record
from tokenprune.evals.report.table import NOTHING, Table


def costs(figures: Sequence[Figures]) -> Table:
    """Return medians of every case: time, operations and memory of a prompt."""
    headings = [
        "batch",
        "strategy",
        "keep ratio",
        "visual tokens",
        "vision tower",
        "selection",
        "prefill",
        "TTFT",
        "decode a token",
        "peak memory",
        "KV cache",
        "TFLOPs",
    ]
    return Table(
        headings,
        [
            [
                *_case(case),
                _time(case.seconds.get("tower")),
                _time(case.seconds.get("selection") if case.is_strategy else None),
                *(_time(case.seconds.get(phase)) for phase in ("prefill", "ttft", "decode")),
                f"{case.facts.peak_bytes / 1e6:,.0f} MB",
                f"{case.facts.kv_cache_bytes / 1e6:,.1f} MB",
                f"{case.facts.flops / 1e12:.3g}",
            ]
            for case in figures
        ],
    )


def ratios(figures: Sequence[Figures]) -> Table:
    """Return every strategy against the unpruned model and against its ideal."""
    headings = [
        "batch",
        "strategy",
        "keep ratio",
        "visual tokens",
        "TTFT to unpruned",
        "TTFT to ideal",
        "prefill to ideal",
        "decode to ideal",
        "FLOPs",
        "peak memory",
        "KV cache",
        "pays from",
        "rounds",
    ]
    return Table(
        headings,
        [
            [
                *_case(case),
                *map(
                    _ratio_cell,
                    (case.ttft_to_unpruned, case.ttft_to_ideal, case.prefill_to_ideal, case.decode_to_ideal),
                ),
                *(f"{ratio:.3f}" for ratio in (case.flops, case.peak, case.cache)),
                _break_even(case.break_even),
                str(case.ttft_to_unpruned.n),
            ]
            for case in figures
            if case.is_strategy and case.ttft_to_unpruned is not None
        ],
    )


def summary(figures: Sequence[Figures], keep_ratio: float) -> Table:
    """Return the most important ratios of every strategy at one keep ratio, the fastest first."""
    chosen = [
        (case.ttft_to_unpruned, case) for case in figures if case.is_strategy and case.facts.keep_ratio == keep_ratio
    ]
    lines = [
        [
            case.facts.strategy,
            _tokens(case),
            _ratio_cell(to_unpruned),
            _ratio_cell(case.ttft_to_ideal),
            _ratio_cell(case.decode_to_ideal),
            _time(case.seconds.get("selection")),
            f"{case.peak:.2f}",
            f"{case.cache:.2f}",
            _break_even(case.break_even),
        ]
        for to_unpruned, case in sorted(chosen, key=lambda pair: pair[0].value if pair[0] else inf)
    ]
    return Table(
        [
            "strategy",
            f"visual tokens, of {figures[0].facts.n_visual}",
            "TTFT to unpruned",
            "TTFT to ideal",
            "decode to ideal",
            "selection",
            "peak memory",
            "KV cache",
            "pays from",
        ],
        lines,
    )


def towers(record: Record, figures: Sequence[Figures]) -> Table:
    """Return one line for each strategy: what it saves in the vision tower, and what that is worth."""
    lines = [
        [
            f"{record.about.get('image', 'image')}, {case.facts.n_visual} tokens",
            case.facts.strategy,
            _tokens(case),
            *map(_ratio_cell, (case.tower_to_unpruned, case.ttft_to_unpruned, case.ttft_to_ideal)),
            _time(case.seconds.get("selection")),
            f"{case.flops:.2f}",
            f"{case.cache:.2f}",
        ]
        for case in figures
        if case.is_strategy
    ]
    headings = ["image", "strategy", "visual tokens left", "vision tower to unpruned", "TTFT to unpruned"]
    return Table([*headings, "TTFT to ideal", "selection", "FLOPs", "KV cache"], lines)


def throughput(record: Record, figures: Sequence[Figures], budget: float) -> Table:
    """One line for each batch size and case for which `generate` was run, timed or not; `budget` is in bytes."""
    run = [case for case in figures if case.facts.generate_bytes is not None]
    peaks: dict[str, dict[int, int]] = {}
    for case in run:
        peaks.setdefault(case.facts.name, {})[case.facts.batch] = case.facts.generate_bytes or 0
    lines = []
    for case in run:
        seconds = case.seconds.get("generate")
        memory = Memory.of(record.about["weight_bytes"], peaks[case.facts.name])
        lines.append(
            [
                *_case(case),
                str(case.facts.n_new),
                NOTHING if seconds is None else f"{case.facts.batch / seconds.value:.3g} a second",
                _speedup(case.generate_to_unpruned if case.is_strategy else None),
                f"{(case.facts.generate_bytes or 0) / 1e9:.2f} GB",
                f"{memory.largest_batch(budget):,}",
            ]
        )
    return Table(
        [
            "batch",
            "strategy",
            "keep ratio",
            "visual tokens",
            "new tokens",
            "samples",
            "to unpruned",
            "peak memory",
            f"largest batch in {budget / 1e9:g} GB",
        ],
        lines,
    )


def _speedup(ratio: Median | None) -> str:
    """Format the ratio of samples per second, given the ratio of times."""
    if ratio is None:
        return NOTHING
    return _ratio_cell(Median(1 / ratio.value, 1 / ratio.high, 1 / ratio.low, ratio.n))


def rich(table: Table, title: str) -> RichTable:
    """Return the table for the terminal."""
    result = RichTable(title=title, title_justify="left")
    for heading in table.headings:
        result.add_column(heading, justify="left" if heading == "strategy" else "right", no_wrap=heading != "strategy")
    for line in table.lines:
        result.add_row(*line)
    return result


def provenance(record: Record) -> str:
    """Describe model, machine and versions in one line."""
    about, others = record.about, [round_.others for round_ in record.rounds if round_.others is not None]
    packages = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    load = f"; other processes used {median(others):.1f} cores" if others else ""
    return (
        f"{about['model']}, {about['parameters'] / 1e9:.2f} billion parameters, {about['dtype']}, {about['attention']} "
        f"attention; {about['device']} ({about['cpu']}; {about['threads']} threads of {about['cores']} cores, "
        f"{about['memory_bytes'] / 2**30:.0f} GiB){load}; {packages}; {record.dates}"
    )


def _case(case: Figures) -> list[str]:
    fact = case.facts
    share = NOTHING if fact.strategy == IDEAL else f"{100 * fact.keep_ratio:g}%"
    name = fact.strategy
    if name == IDEAL:
        name = f"{IDEAL} {replace(fact.schedule, tower=())}" + ", tower pruned" * bool(fact.schedule.tower)
    return [str(fact.batch), name, share, _tokens(case)]


def _tokens(case: Figures) -> str:
    fact = case.facts
    return f"{fact.n_kept}" if fact.n_mean == fact.n_kept else f"{fact.n_kept} ({fact.n_mean:.0f} a layer)"


def _time(median: Median | None) -> str:
    if median is None:
        return NOTHING
    return f"{median.value:.2f} s" if abs(median.value) >= 1 else f"{1e3 * median.value:.1f} ms"


def _ratio_cell(median: Median | None) -> str:
    """Format a ratio with its interval, if there were several rounds."""
    if median is None:
        return NOTHING
    interval = f" [{median.low:.3f}, {median.high:.3f}]" if median.n > 1 else ""
    return f"{median.value:.3f}{interval}"


def _break_even(n_visual: float | None) -> str:
    return NOTHING if n_visual is None else f"{max(1, ceil(n_visual))} tokens"
