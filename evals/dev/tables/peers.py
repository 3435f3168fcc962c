"""Our prefills and the published packages', as `dev/peers/speed/run.py` stored them."""

import json
from collections.abc import Sequence
from typing import Any

from tokenprune.evals.bench.figures import Median
from tokenprune.evals.dev.tables import RESULTS
from tokenprune.evals.report.table import Table


def stored() -> str:
    return markdown(json.loads((RESULTS / "peers_speed.json").read_text(encoding="utf-8")))


def table(stored: dict[str, Any]) -> Table:
    """Return one line per prefill: time against its own package's unpruned model and against ours; KV cache."""
    headings = ["package", "prefill", "seconds", "to its unpruned", "to our unpruned", "KV cache"]
    lines = []
    for name, size in stored["kv_cache_bytes"].items():
        package, prefill = name.split(": ")
        own = "tokenprune: unpruned" if package == "tokenprune" else f"{package}: unpruned"
        seconds = Median.of([one["seconds"][name] for one in stored["rounds"]])
        assert seconds is not None
        ratios = [_ratio(stored["rounds"], name, other) for other in (own, "tokenprune: unpruned")]
        lines.append([package, prefill, f"{seconds.value:.2f}", *ratios, f"{size / 1e6:.1f} MB"])
    return Table(headings, lines)


def _ratio(rounds: Sequence[dict[str, Any]], name: str, other: str) -> str:
    median = Median.of([one["seconds"][name] / one["seconds"][other] for one in rounds])
    assert median is not None
    return f"{median.value:.3f} [{median.low:.3f}, {median.high:.3f}]"


def provenance(stored: dict[str, Any]) -> str:
    """Describe machine and versions."""
    about = stored["about"]
    packages = "; ".join(
        f"{package}: " + ", ".join(f"{name} {version}" for name, version in versions.items())
        for package, versions in stored["versions"].items()
    )
    largest = max(value for name, value in stored["logits_difference"].items() if name.endswith(": unpruned"))
    return (
        f"Medians of {len(stored['rounds'])} rounds with 95 % interval, {about['dtype']}, {about['cpu']}, "
        f"{about['threads']} threads of {about['cores']} cores, {stored['rounds'][0]['moment'][:10]}. {packages}. The "
        f"packages' unpruned models agree: their logits differ by {largest:.1e} of their length at most."
    )


def markdown(stored: dict[str, Any]) -> str:
    return f"{table(stored)}\n\n{provenance(stored)}\n"
