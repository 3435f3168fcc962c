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
                *_case(one),
                _time(one.seconds.get("tower")),
                _time(one.seconds.get("selection") if one.is_strategy else None),
                *(_time(one.seconds.get(phase)) for phase in ("prefill", "ttft", "decode")),
                f"{one.facts.peak_bytes / 1e6:,.0f} MB",
                f"{one.facts.kv_cache_bytes / 1e6:,.1f} MB",
                f"{one.facts.flops / 1e12:.3g}",
            ]
            for one in figures
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
                *_case(one),
                *map(ratio_cell, (one.ttft_to_unpruned, one.ttft_to_ideal, one.prefill_to_ideal, one.decode_to_ideal)),
                *(f"{ratio:.3f}" for ratio in (one.flops, one.peak, one.cache)),
                _break_even(one.break_even),
                str(one.ttft_to_unpruned.n),
            ]
            for one in figures
            if one.is_strategy and one.ttft_to_unpruned is not None
        ],
    )


def summary(figures: Sequence[Figures], keep_ratio: float) -> Table:
    """Return the most important ratios of every strategy at one keep ratio, the fastest first."""
    chosen = [(one.ttft_to_unpruned, one) for one in figures if one.is_strategy and one.facts.keep_ratio == keep_ratio]
    lines = [
        [
            one.facts.strategy,
            _tokens(one),
            ratio_cell(to_unpruned),
            ratio_cell(one.ttft_to_ideal),
            ratio_cell(one.decode_to_ideal),
            _time(one.seconds.get("selection")),
            f"{one.peak:.2f}",
            f"{one.cache:.2f}",
            _break_even(one.break_even),
        ]
        for to_unpruned, one in sorted(chosen, key=lambda pair: pair[0].value if pair[0] else inf)
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
            f"{record.about.get('image', 'image')}, {one.facts.n_visual} tokens",
            one.facts.strategy,
            _tokens(one),
            *map(ratio_cell, (one.tower_to_unpruned, one.ttft_to_unpruned, one.ttft_to_ideal)),
            _time(one.seconds.get("selection")),
            f"{one.flops:.2f}",
            f"{one.cache:.2f}",
        ]
        for one in figures
        if one.is_strategy
    ]
    headings = ["image", "strategy", "visual tokens left", "vision tower to unpruned", "TTFT to unpruned"]
    return Table([*headings, "TTFT to ideal", "selection", "FLOPs", "KV cache"], lines)


def throughput(record: Record, figures: Sequence[Figures], budget: float) -> Table:
    """One line for each batch size and case for which `generate` was run, timed or not; `budget` is in bytes."""
    run = [one for one in figures if one.facts.generate_bytes is not None]
    peaks: dict[str, dict[int, int]] = {}
    for one in run:
        peaks.setdefault(one.facts.name, {})[one.facts.batch] = one.facts.generate_bytes or 0
    lines = []
    for one in run:
        seconds = one.seconds.get("generate")
        memory = Memory.of(record.about["weight_bytes"], peaks[one.facts.name])
        lines.append(
            [
                *_case(one),
                str(one.facts.n_new),
                NOTHING if seconds is None else f"{one.facts.batch / seconds.value:.3g} a second",
                _speedup(one.generate_to_unpruned if one.is_strategy else None),
                f"{(one.facts.generate_bytes or 0) / 1e9:.2f} GB",
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
    return ratio_cell(Median(1 / ratio.value, 1 / ratio.high, 1 / ratio.low, ratio.n))


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
    about, others = record.about, [one.others for one in record.rounds if one.others is not None]
    packages = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    clock = f"; {about['clock']}" if "clock" in about else ""
    load = f"; other processes used {median(others):.1f} cores" if others else ""
    return (
        f"{about['model']}, {about['parameters'] / 1e9:.2f} billion parameters, {about['dtype']}, {about['attention']} "
        f"attention; {about['device']} ({about['cpu']}; {about['threads']} threads of {about['cores']} cores, "
        f"{about['memory_bytes'] / 2**30:.0f} GiB){clock}{load}; {packages}; {record.dates}"
    )


def _case(one: Figures) -> list[str]:
    fact = one.facts
    share = NOTHING if fact.strategy == IDEAL else f"{100 * fact.keep_ratio:g}%"
    name = fact.strategy
    if name == IDEAL:
        name = f"{IDEAL} {replace(fact.schedule, tower=())}" + ", tower pruned" * bool(fact.schedule.tower)
    return [str(fact.batch), name, share, _tokens(one)]


def _tokens(one: Figures) -> str:
    fact = one.facts
    return f"{fact.n_kept}" if fact.n_mean == fact.n_kept else f"{fact.n_kept} ({fact.n_mean:.0f} a layer)"


def _time(median: Median | None) -> str:
    if median is None:
        return NOTHING
    return f"{median.value:.2f} s" if abs(median.value) >= 1 else f"{1e3 * median.value:.1f} ms"


def ratio_cell(median: Median | None) -> str:
    """Format a ratio with its interval, if there were several rounds."""
    if median is None:
        return NOTHING
    interval = f" [{median.low:.3f}, {median.high:.3f}]" if median.n > 1 else ""
    return f"{median.value:.3f}{interval}"


def _break_even(n_visual: float | None) -> str:
    return NOTHING if n_visual is None else f"{max(1, ceil(n_visual))} tokens"
