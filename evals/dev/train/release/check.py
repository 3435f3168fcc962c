"""Summarise the bundled sets, and fail if guessing pays or if training saw what it should not:
`python -m tokenprune.evals.dev.train.release.check FOLDER...`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tokenprune.evals.dev.train.release.choose import SHARE_ALIKE
from tokenprune.evals.dev.train.release.plans import HELD_OUT_THINGS, KINDS
from tokenprune.evals.dev.train.scenes.draw import SIGN
from tokenprune.evals.dev.train.start.model import build_processor
from tokenprune.evals.dev.train.vocabulary.nouns import nouns
from tokenprune.evals.report.table import NOTHING, Table

#: The largest acceptable accuracy of always giving the same answer, by kind of question.
MOST_BY_GUESSING = {"presence": 0.55, "relation": 0.45, "count": 0.35, "color": 0.35}
OTHERWISE = 0.15
FEW = 60  # questions; among fewer, chance alone makes one answer frequent


@dataclass(frozen=True)
class Content:
    """A set's questions as (split, kind, text, answer), without an answer for REC, and its things as (split, file)."""

    questions: list[tuple[str, str, str, str]]
    sources: list[tuple[str, str]]
    n_images: Counter[str]
    n_bytes: int

    @classmethod
    def read(cls, folder: Path) -> Content:
        instances = _json(folder / "instances.json")
        splits = {image["id"]: image.get("split", "") for image in instances["images"]}
        questions = []
        if (folder / "questions.json").exists():
            told = {record["question_id"]: record for record in _json(folder / "annotations.json")["annotations"]}
            for record in _json(folder / "questions.json")["questions"]:
                answer = told[record["question_id"]]
                about = splits[record["image_id"]], answer["question_type"]
                questions.append((*about, record["question"], answer["multiple_choice_answer"]))
        for file in folder.glob("refs(*).json"):
            refs = _json(file)
            told = [(ref["image_id"], sentence["sent"]) for ref in refs for sentence in ref["sentences"]]
            questions += [(splits[image], "rec", f"where is {words}?", "") for image, words in told]
        sources = [(splits[box["image_id"]], box["source"]) for box in instances["annotations"] if "source" in box]
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return cls(questions, sources, Counter(splits.values()), size)


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def seen_on_the_wrong_side(content: Content) -> Iterator[str]:
    """Yield the files of things that must not be in their split. Photographs have none."""
    held_out = frozenset[str]().union(*(noun.held_out for noun in nouns()))
    for split, file in content.sources:
        wrong = file != SIGN and (file in held_out) != HELD_OUT_THINGS[split]
        if wrong or file.split("/")[0] in SHARE_ALIKE:
            yield f"{file} in {split}"


def unknown_words(content: Content, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Yield the questions with words that the model has no tokens for."""
    for _, _, text, answer in content.questions:
        ids = tokenizer(f"{text} {answer}", add_special_tokens=False).input_ids
        if tokenizer.unk_token_id in ids:
            yield f"{text} {answer}"


def most_frequent(content: Content) -> dict[str, tuple[str, float, int]]:
    """Return, for each kind except REC, the most frequent answer, its share, and the number of questions."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for _, kind, _, answer in content.questions:
        if kind != "rec":
            answers[kind][answer] += 1
    firsts = {kind: (*counted.most_common(1)[0], counted.total()) for kind, counted in answers.items()}
    return {kind: (answer, times / total, total) for kind, (answer, times, total) in sorted(firsts.items())}


def guessable(content: Content) -> Iterator[str]:
    """Yield the kinds for which one answer is right too often."""
    for kind, (answer, share, total) in most_frequent(content).items():
        if kind in KINDS and total >= FEW and share > MOST_BY_GUESSING.get(kind, OTHERWISE):
            yield f"{kind}: {answer!r} is right in {share:.0%} of {total}"


def describe(name: str, content: Content) -> str:
    kinds = Counter((split, kind) for split, kind, _, _ in content.questions)
    guess = most_frequent(content)
    splits = sorted(content.n_images, reverse=True)
    rows = [
        [kind, *(str(kinds[split, kind]) for split in splits), *_guess(guess.get(kind))]
        for kind in sorted({kind for _, kind in kinds})
    ]
    images = ", ".join(f"{content.n_images[split]} {split or 'images'}" for split in splits)
    title = f"{name}: {len(content.questions)} questions about {images}; {content.n_bytes / 2**20:.1f} MiB"
    table = Table(["kind", *(split or "all" for split in splits), "most frequent answer", "its share"], rows)
    return f"{title}\n\n{table}\n"


def _guess(guess: tuple[str, float, int] | None) -> list[str]:
    return [NOTHING, NOTHING] if guess is None else [guess[0], f"{guess[1]:.0%}"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    tokenizer = build_processor().tokenizer
    faults, total = list[str](), 0
    for folder in parser.parse_args(arguments).folders:
        content = Content.read(folder)
        total += len(content.questions)
        print(describe(folder.name, content))
        for check in (seen_on_the_wrong_side(content), unknown_words(content, tokenizer), guessable(content)):
            faults += [f"{folder.name}: {fault}" for fault in check]
    print(f"{total} questions in all")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
