"""`tokenprune sets`: the published sets, their files, and the folders that tasks read."""

from argparse import ArgumentParser, Namespace

from tokenprune.evals.arguments.parser import Formatter, a_path, not_empty

EXTRA = "evals"


def add_options(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", dest="action", help="arrange a download (default: list the sets)")
    about = "arrange a snapshot of a repository on the Hub into DIR/TASK, for `tokenprune eval --data DIR`"
    action = actions.add_parser("arrange", help=about, description=about, formatter_class=Formatter, allow_abbrev=False)
    action.add_argument("task", type=not_empty, metavar="TASK", help="name of a task")
    action.add_argument(
        "--from", dest="snapshot", type=a_path, required=True, metavar="SNAPSHOT", help="folder with the download"
    )
    action.add_argument("--to", dest="folder", type=a_path, required=True, metavar="DIR", help="folder of all sets")


def run(options: Namespace) -> None:
    """List tasks with splits, numbers of questions and files, or arrange a download into the folder of a task.

    Archives of videos are extracted; other files are linked if the file system can do that, or else copied. Numbers of
    questions are then compared with the published ones.
    """
    from rich.table import Table

    from tokenprune.evals.cli.output import console
    from tokenprune.evals.tasks import TASKS, find_task
    from tokenprune.evals.tasks.base.arrange import arrange

    if options.action:
        task, folder = find_task(options.task), options.folder / options.task
        found = arrange(task, options.snapshot, folder)
        published = task.published.questions if task.published else {}
        for split, count in sorted(found.items()):
            expected = f"published: {published[split]:,}" if split in published else "published number unknown"
            print(f"{task.title}{split and f' {split}'}: {count:,} questions ({expected})")
        print(f"Arranged in {folder}; type `tokenprune eval --data {options.folder} --tasks {task.name}`")
        return
    table = Table("task", "set", "questions per split", "on the Hub", "authors' files")
    for task in TASKS.values():
        if about := task.published:
            counts = ", ".join(f"{split} {count:,}".strip() for split, count in about.questions.items())
            names = ", ".join(source.repository for source in about.hub)
            table.add_row(task.name, task.title, counts, names, " ".join((about.site, about.files)).strip())
    screen = console(200)
    screen.print(table)
    screen.print("tokenprune sets arrange TASK --from SNAPSHOT --to DIR arranges a download from the Hub")
