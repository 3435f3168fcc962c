"""The table that `tokenprune actions` prints."""

from collections.abc import Sequence

from rich.table import Table

from tokenprune.evals.actions.compare import ActionError

CAPTION = """\
Errors are absolute differences from the unpruned policy's actions, in the policy's normalised units.
{other:.3g} is what another draw of the noise changes in the unpruned policy."""


def table(results: Sequence[ActionError]) -> Table:
    """A row for each strategy and keep ratio."""
    table = Table(
        "strategy",
        "position IDs",
        "keep ratio",
        "visual tokens",
        "action error",
        "first action",
        "worst",
        "KV read",
        "time",
        title=f"{results[0].n} observations, open loop",
        caption=CAPTION.format(other=results[0].other_noise),
        caption_justify="left",
    )
    for result in results:
        interval = "" if result.interval is None else f" [{result.interval[0]:.3g}, {result.interval[1]:.3g}]"
        table.add_row(
            result.label,
            result.position_ids,
            f"{100 * result.keep_ratio:g}%",
            f"{result.kept} of {result.visual}",
            f"{result.mean:.3g}{interval}",
            f"{result.first:.3g}",
            f"{result.worst:.3g}",
            f"{result.kv_read:.0%}",
            f"{result.seconds:.3f} s (unpruned {result.unpruned_seconds:.3f})",
        )
    return table
