"""The table of published sets: where their files come from, what the folders hold, and how many questions they have."""

from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.published import Published, Snapshot


def table() -> str:
    lines = ["| task | questions per split | from the Hub | authors' files: folder |", "|---|---|---|---|"]
    for task in TASKS.values():
        if about := task.published:
            counts = ", ".join(f"{split and f'`{split}` '}{count:,}" for split, count in about.questions.items())
            hub = "<br>".join(map(_described, about.hub))
            lines.append(f"| `{task.name}` | {counts} | {hub} | {_own(about)} |")
    return "\n".join([*lines, ""])


def _described(source: Snapshot) -> str:
    files = ", ".join(f"`{pattern}`" for pattern in (*source.files, *source.archives))
    return f"[{source.repository}](https://huggingface.co/datasets/{source.repository}): {files}"


def _own(about: Published) -> str:
    return f"[site]({about.site}): {about.files}" if about.site and about.files else about.files
