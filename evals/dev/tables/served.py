"""The table of models that are pruned inside vLLM, from the plug-in's records."""

from tokenprune.serving.vllm.architectures import RECORDS
from tokenprune.serving.vllm.architectures.architecture import Architecture
from tokenprune.serving.vllm.architectures.releases import releases_with

#: What the columns after the architecture mark.
MARKS = ("takes_images", "prunes_videos", "drops_patches", "shrinks", "takes_adapters")


def rows() -> dict[str, list[Architecture]]:
    """The records of each row of the table, by its title: one, and those after it without a title of their own."""
    titled: dict[str, list[Architecture]] = {}
    title = ""
    for record in RECORDS:
        title = record.title or title
        titled.setdefault(title, []).append(record)
    return titled


def table() -> str:
    lines = [
        "| model | architecture | images | videos | `PixelPrune` | `Downsample` | adapters |",
        "|---|---|:-:|:-:|:-:|:-:|:-:|",
    ]
    for title, (first, *others) in sorted(rows().items(), key=lambda row: row[0].lower()):
        names = ", ".join(f"`{record.name}`" for record in (first, *others))
        releases = releases_with(first)
        model = title if releases is None else f"{title} (vLLM {releases})"
        marks = ("✓" if getattr(first, mark) else "" for mark in MARKS)
        lines.append(f"| {model} | {names} | {' | '.join(marks)} |")
    return "\n".join([*lines, ""])
