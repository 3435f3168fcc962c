"""A hook of MkDocs: the site's pages are the repository's, at the same paths, and an API reference from the docstrings.

Links between pages are the same on both. Those to files that are no pages, such as source, become text.
"""

from __future__ import annotations

import json
import re
from importlib import import_module
from inspect import signature
from itertools import groupby
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any

from mkdocs.structure.files import File, Files

from tokenprune.evals.adapt.settings import AdaptationSettings
from tokenprune.evals.arguments.fields import Settings
from tokenprune.evals.run.settings import EvaluationSettings
from tokenprune.evals.tune.settings import TuningSettings

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = "adapters", "demos", "evals", "tests", "tokenprune"
FILES = "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "evals/dev/website.css"
SHOWN = {".md", ".ipynb", ".png", ".gif", ".jpg"}
TEMPLATES = ROOT / "evals/dev/train"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
#: In a docstring, a paragraph whose lines start with the names of fields or arguments.
PARAGRAPH = re.compile(r"<p>(?=[a-z]\w*(?:, \w+)*: )(.*?)</p>", re.DOTALL)
FIELD, ITEM = re.compile(r"^(\w+(?:, \w+)*): ", re.MULTILINE), r"<li><code>\1</code>: "
PACKAGES = "tokenprune.strategies", "tokenprune", "tokenprune.selection", "tokenprune.strategy", "tokenprune.tokens"
INHERITED = "    options: {inherited_members: true}\n"
#: Public, but not in `__all__`, which must not load the libraries of extras: each with the class of its arguments.
TOOLS = {
    "tokenprune.evals.evaluate": EvaluationSettings,
    "tokenprune.tune": TuningSettings,
    "tokenprune.adapt": AdaptationSettings,
}
WITHOUT_HEADING = "    options: {show_root_heading: false, show_root_toc_entry: false}\n"


def on_files(files: Files, config: Any) -> Files:
    """Replace MkDocs' one folder of pages by the repository's, each once in spite of links; leave the theme's files."""
    shown = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*") if path.suffix in SHOWN)
    paths = (path for path in shown if path.resolve() == path and TEMPLATES not in path.parents)
    names = [*FILES, *(path.relative_to(ROOT).as_posix() for path in paths)]
    names = [name for name in names if "/." not in name]  # a notebook's checkpoints
    made = api()
    made |= {f"{name}.md": notebook(ROOT / name) for name in names if name.endswith(".ipynb")}
    pages = [File.generated(config, name, abs_src_path=str(ROOT / name)) for name in names if f"{name}.md" not in made]
    pages += [File.generated(config, name, content=text) for name, text in made.items()]
    return Files([*pages, *(file for file in files if file.src_dir != config.docs_dir)])


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Turn links to folders into links to their README, and those to what is no page into text; leave dead ones.

    A link that is named after its file gets the page's title instead.
    """

    def linked(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups(default="")
        if ":" in target:
            return match[0]
        place = normpath(join(dirname(page.file.src_uri), target))
        for end in (".md", "", "/README.md"):  # the first for notebooks
            if file := files.get_file_from_path(place + end):
                text = file.page.title if file.page and text.endswith(".md") else text
                return f"{image}[{text}]({target.rstrip('/')}{end}{anchor})"
        return text if (ROOT / place).exists() else match[0]

    return LINK.sub(linked, markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """List the fields and arguments of the API."""
    if not page.file.src_uri.startswith("api/"):
        return html
    return PARAGRAPH.sub(lambda match: f"<ul>{FIELD.sub(ITEM, match[1])}</ul>", html)


def notebook(path: Path) -> str:
    """Return the cells of a notebook as Markdown."""
    cells = [
        (cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    ]
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells)


def called(name: str, settings: type[Settings]) -> str:
    """Return a heading, and how a function is called that takes the fields of a settings class."""
    words = []
    for argument in signature(settings).parameters.values():
        default = "" if argument.default is argument.empty else f" = {argument.default!r}".replace(f"{ROOT}/", "")
        words.append(f"{argument.name}: {argument.annotation}{default}")
    arguments = ",\n    ".join([words[0], "*", *words[1:]])
    return f"{name}\n\n```python\n{name}(\n    {arguments},\n)\n```\n\n"


def api() -> dict[str, str]:
    """Return the pages in api/: every public class and function under its module."""
    homes = {}
    for package in PACKAGES:
        module = import_module(package)
        for name in module.__all__:
            if home := getattr(getattr(module, name), "__module__", None):
                parts = home.split(".")
                homes.setdefault(f"{'.'.join(parts[: 2 + (parts[1] == 'strategies')])}.{name}", f"{package}.{name}")
    pages = {"library": "# Library\n", "strategies": "# Built-in strategies\n", "writing": "# Writing a strategy\n"}
    for home, places in groupby(sorted(homes), lambda place: place.rpartition(".")[0]):
        page = "strategies" if ".strategies" in home else "writing" if home in PACKAGES else "library"
        blocks = (f"::: {homes[place]}\n{INHERITED * place.endswith('Handle')}\n" for place in places)
        pages[page] += f"\n## `{home}`\n\n{''.join(blocks)}"
    pages["library"] += "\n## `tokenprune.evals`\n\n"
    for name, settings in TOOLS.items():
        pages["library"] += f"### {called(name.rpartition('.')[2], settings)}::: {name}\n{WITHOUT_HEADING}\n"
    return {f"api/{name}.md": text for name, text in pages.items()}
