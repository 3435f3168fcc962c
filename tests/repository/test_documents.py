"""The Markdown documents: code runs, commands parse, links exist, and the catalogue has every strategy."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tokenprune
from tokenprune import Strategy, strategies
from tokenprune.adapters import ADAPTERS
from tokenprune.evals.cli import build_parser
from tokenprune.evals.dev.measure.plan import PRUNED
from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.dev.tables.accuracy import adapted
from tokenprune.evals.dev.tables.accuracy.measured import measured
from tokenprune.evals.dev.tables.speed import bench
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.report import markers
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.strategies.parsing import parse
from tokenprune.strategies.registry import STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
README, PATCHING = ROOT / "README.md", ROOT / "tokenprune" / "patching" / "README.md"
CATALOGUE = ROOT / "tokenprune" / "strategies" / "catalogue.md"
#: The maximum number of lines of a document, without its generated tables.
LONGEST = {README: 120, PATCHING: 150}
FOLDERS = "adapters", "demos", "evals", "tests", "tokenprune"
#: Each document once, not again through the symlinks in tokenprune/.
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md")))
    if path.resolve() == path
)

#: Names in the README's program, and their replacements here.
STAND_INS = {"Qwen/Qwen3-VL-2B-Instruct": str(MODEL), "cup.jpg": str(SCENES / "images" / "val_000001.webp")}

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """Return the text of a document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return GitHub's anchors for the headings of a document."""
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in HEADING.findall(prose(path))}


@cache
def model_and_processor() -> tuple[Any, Any]:
    return load_model(str(MODEL), "auto")


# transformers' pipelines need it to read images.
@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities of TorchVision:DeprecationWarning")
@pytest.mark.parametrize("path", LONGEST, ids=named)
def test_code_blocks_run(path: Path) -> None:
    """All blocks in order, as one program, with the bundled model."""
    model, processor = model_and_processor()
    image = Image.open(SCENES / "images" / "val_000001.webp")
    prompt = "USER: <image>\nwhat is on the left? ASSISTANT:"
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    given = {"model": model, "processor": processor, "image": image, "prompt": prompt, "inputs": inputs}
    code = "".join(re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    assert code
    for name, stand_in in STAND_INS.items():
        assert (f'"{name}"' in code) == (path == README)
        code = code.replace(f'"{name}"', repr(stand_in))
    try:
        exec(compile(code, named(path), "exec", dont_inherit=True), given)
    finally:
        tokenprune.unpatch(model)


def commands(path: Path) -> list[list[str]]:
    """Return the `tokenprune` commands in a document's shell blocks, except those with a variable of a shell loop."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = (line.strip() for line in "".join(blocks).replace("\\\n", " ").splitlines())
    found = [line for line in lines if line.startswith("tokenprune ") and not re.search(r"\$\{?[a-z]", line)]
    return [[word for word in shlex.split(line, comments=True)[1:] if word != "..."] for line in found]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if commands(path)], ids=named)
def test_commands_parse(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `serve` may have unknown options, which it passes on. Images and videos in commands must exist."""
    monkeypatch.chdir(tmp_path)
    for words in commands(path):
        for word in words:
            if word.endswith((".jpg", ".mp4")):
                Path(word).touch()
        _, unknown = build_parser().parse_known_args(words)
        assert not unknown or words[0] == "serve", f"{named(path)}: {' '.join(unknown)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_strategies_in_sequence_go_together(path: Path) -> None:
    """In commands, whose parsers accept any name, and in text."""
    for text in re.findall(r"[a-z]\S*\+[a-z][\w:=,.]*\w", path.read_text(encoding="utf-8")):
        if all(step.partition(":")[0] in STRATEGIES for step in text.split("+")):
            parse(text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_exist(path: Path) -> None:
    for link in LINK.findall(prose(path)):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        target = path.parent / place if place else path
        assert target.exists(), f"{named(path)}: {link}"
        assert not anchor or anchor in anchors(target), f"{named(path)}: {link}"


@pytest.mark.parametrize(("path", "most"), LONGEST.items(), ids=map(named, LONGEST))
def test_documents_are_short(path: Path, most: int) -> None:
    text = path.read_text(encoding="utf-8")
    for name in markers.names_in(text):
        text = markers.replace_block(text, name, "")
    assert len(text.splitlines()) <= most


def test_every_strategy_is_in_the_catalogue() -> None:
    classes = [getattr(tokenprune, name) for name in strategies.__all__ if name[0].isupper()]
    names = [cls.__name__ for cls in classes if isinstance(cls, type) and issubclass(cls, Strategy)]
    rows = re.findall(r"^\| \[?`(\w+)`", CATALOGUE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(names)


def accuracies() -> dict[tuple[str, str], list[str]]:
    """Return REC and VQA, each with original and compact IDs, from the first table of accuracy.md, by strategy and
    ratio."""
    lines = (ROOT / "evals" / "results" / "accuracy.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if len(row) == 10 and row[4].endswith(" MB"):
            found.setdefault((row[2], row[1]), [cell.split()[0] for cell in row[5:9]])
    return found


def numbers() -> Iterator[tuple[str, str]]:
    """Yield documents, and what they repeat of counts and measurements."""
    n_types = len({architecture.model_type for architecture in ARCHITECTURES.values()})
    yield "README.md", f"{len(ADAPTERS)} classes of transformers: "
    yield "README.md", f"[over {n_types // 10 * 10} types](tokenprune/serving/models.md)"  # so that not each changes it
    (time,) = (line for line in bench.summary_of_stored().splitlines() if line.startswith("| Mosaic |"))
    yield "README.md", f"to {float(time.split('|')[3].split('[')[0]):.2f} of"
    served = (RESULTS.parent / "serving.md").read_text(encoding="utf-8")
    ratio = dict(re.findall(r"^\| (page|table|screen) \|.* ([\d.]+) \[[^|]*\|$", served, re.MULTILINE))
    yield "README.md", f"to {ratio['page']} and {ratio['screen']}]"
    yield "tokenprune/serving/README.md", f"to {ratio['page']}, {ratio['table']} and {ratio['screen']} of"
    of_setup = accuracies()
    (rec, _, vqa, _), (pruned_rec, _, pruned_vqa, _) = of_setup["unpruned", "100 %"], of_setup["Mosaic", "25 %"]
    yield "README.md", f"VQA accuracy falls from {vqa} to {pruned_vqa} %"
    yield "README.md", f"located correctly from {rec} to {pruned_rec} %"
    (part,) = (part for part in PRUNED if part.data == "text")
    signs = {row.strategy: 100 * row.accuracy for row in measured(part).rows if row.keep_ratio in (1.0, 0.25)}
    yield "README.md", f"sign reading from {signs['unpruned']:.1f} to {signs['Mosaic']:.1f} %"
    original, compact, _, _ = of_setup["FoPru rank -2", "25 %"]
    yield "README.md", f"REC is {original} % with original and {compact} % with compact IDs ({rec} % unpruned)"
    (row,) = (line.split("|") for line in adapted.stored().splitlines() if line.startswith("| 25% | REC |"))
    for name in ("evals/adapt/README.md", "evals/walkthrough.md"):
        yield name, f"from {row[4].split()[0]} to {row[5].split()[0]} % at 25 %"


def test_documents_repeat_what_was_counted_and_measured() -> None:
    texts = {name: " ".join((ROOT / name).read_text(encoding="utf-8").split()) for name, _ in numbers()}
    assert [(name, said) for name, said in numbers() if said not in texts[name]] == []
