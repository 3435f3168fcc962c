"""Our prefills and the published packages', as `dev/peers/speed/run.py` stored them."""

import json
from collections.abc import Sequence
from math import prod
from typing import Any

from tokenprune.evals.bench.figures import Median
from tokenprune.evals.bench.tables import ratio_cell
from tokenprune.evals.dev.stored import RESULTS, versions
from tokenprune.evals.report.table import Table


def stored() -> str:
    """Return the table of every stored batch size."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("peers_speed*.json")]
    return "\n".join(markdown(record) for record in sorted(records, key=lambda record: record["about"].get("batch", 1)))


def table(stored: dict[str, Any]) -> Table:
    """Return one line per prefill: time against its own package's unpruned model and against ours; KV cache."""
    headings = ["package", "prefill", "seconds", "to its unpruned", "to our unpruned", "KV cache"]
    lines = []
    for name, size in stored["kv_cache_bytes"].items():
        package, prefill = name.split(": ")
        own = "tokenprune: unpruned" if package == "tokenprune" else f"{package}: unpruned"
        seconds = Median.of([each["seconds"][name] for each in stored["rounds"]])
        assert seconds is not None
        ratios = [_ratio(stored["rounds"], name, other) for other in (own, "tokenprune: unpruned")]
        lines.append([package, prefill, f"{seconds.value:.2f}", *ratios, f"{size / 1e6:.1f} MB"])
    return Table(headings, lines)


def _ratio(rounds: Sequence[dict[str, Any]], name: str, other: str) -> str:
    return ratio_cell(Median.of([each["seconds"][name] / each["seconds"][other] for each in rounds]))


def provenance(stored: dict[str, Any]) -> str:
    """Return the sentence on machine and versions."""
    about = stored["about"]
    packages = "; ".join(
        f"{package}: " + ", ".join(f"{name} {version}" for name, version in installed.items())
        for package, installed in stored["versions"].items()
    )
    largest = max(value for name, value in stored["logits_difference"].items() if name.endswith(": unpruned"))
    n_rounds = len(stored["rounds"])
    spread = "95 % interval" if n_rounds > 3 else "their range"  # so few rounds resample to their range
    returned = ", freed memory returned at once" if about.get("returns_memory") else ""
    return (
        f"Batch {about.get('batch', 1)}, medians of {n_rounds} rounds with {spread}{returned}, "
        f"{about['dtype']}, {about['cpu']}, {about['threads']} threads of {about['cores']} cores, "
        f"{stored['rounds'][0]['moment'][:10]}. {packages}. The packages' unpruned models agree: their logits differ "
        f"by {largest:.1e} of their length at most."
    )


def videos() -> str:
    """Return the table of vLLM's video reducers and ours, as `dev/peers/vllm_videos.py` stored them."""
    stored = json.loads((RESULTS / "peers_videos.json").read_text(encoding="utf-8"))
    about, lines = stored["about"], []
    for row in stored["rows"]:
        medians = [Median.of([each[side] for each in row["rounds"]]) for side in ("vLLM", "tokenprune")]
        times = [f"{1e3 * median.value:.1f} ms" for median in medians if median is not None]
        ratio = _ratio([{"seconds": each} for each in row["rounds"]], "tokenprune", "vLLM")
        kept = f"{row['n_kept']:,} of {prod(row['grid']):,}"
        lines.append(
            [row["method"], " x ".join(map(str, row["grid"])), kept, "yes" if row["same"] else "no", *times, ratio]
        )
    table = Table(["method", "frames and grid", "kept", "the same", "vLLM", "tokenprune", "to vLLM"], lines)
    return (
        f"{table}\n\nCPU time of one thread, medians of {len(stored['rows'][0]['rounds'])} rounds with 95 % interval, "
        f"width {about['width']}; {about['cpu']}; {versions(about)}; {about['moment'][:10]}\n"
    )


def markdown(stored: dict[str, Any]) -> str:
    return f"{table(stored)}\n\n{provenance(stored)}\n"
