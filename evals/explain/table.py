"""An explanation as a table in the terminal: one line per setup."""

from rich.filesize import decimal
from rich.table import Table

from tokenprune.evals.explain.outcomes import Explanation, Outcome
from tokenprune.evals.report.table import NOTHING


def table(explanation: Explanation) -> Table:
    unpruned = explanation.unpruned
    result = Table(title=explanation.question, title_justify="left", caption_justify="left")
    timed = any(outcome.ttft is not None for outcome in explanation.outcomes)
    result.caption = "visual tokens that a decoder layer sees on average; KV cache after the prefill"
    result.caption += "; TTFT: time to first token, relative to unpruned" if timed else ""
    both = len({outcome.setup.position_ids for outcome in explanation.outcomes[1:]}) > 1
    result.add_column("strategy", no_wrap=True)
    if both:
        result.add_column("position IDs", no_wrap=True)
    for heading in ("keep ratio", "visual tokens", "KV cache", *(["TTFT"] if timed else [])):
        result.add_column(heading, justify="right", no_wrap=True)
    result.add_column("answer", overflow="fold")
    result.add_column("vs unpruned", justify="center", no_wrap=True)
    if explanation.true_box is not None:
        result.add_column("IoU", justify="right", no_wrap=True)
    for outcome in explanation.outcomes:
        setup, kept = outcome.setup, outcome.kept
        first = outcome is unpruned
        result.add_row(
            setup.label,
            *([NOTHING if first else setup.position_ids] if both else []),
            f"{kept.n_mean / kept.n_visual:.0%}",
            f"{kept.n_mean:.4g} of {kept.n_visual}",
            decimal(outcome.kv_cache_bytes),
            *([] if outcome.ttft is None else [f"{outcome.ttft:.2f}x"]),
            outcome.answer or "(no answer)",
            NOTHING if first else _beside_unpruned(explanation, outcome),
            *([] if outcome.iou is None else [f"{outcome.iou:.2f}" if outcome.box else "no box"]),
        )
    return result


def _beside_unpruned(explanation: Explanation, outcome: Outcome) -> str:
    overlap = explanation.overlap(outcome)
    if outcome.answer == explanation.unpruned.answer:
        return "the same"
    if overlap is None:
        return "different"
    return f"IoU {overlap:.2f}" if outcome.box else "no box"
