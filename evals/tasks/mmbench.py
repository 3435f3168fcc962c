"""MMBench (https://arxiv.org/abs/2307.06281): multiple choice, right only if right for every rotation of the options.

It reads the published tables, `mmbench_SPLIT_DATE.tsv` or `MMBench_SPLIT_LANGUAGE.tsv` (images in base64), and the
Hub's lmms-lab/MMBench (its folder `en`; to use another, pass that folder alone). Rotated copies of a question have its
index plus a multiple of a million, and in some tables its index in place of the image; if a file has no copies of a
question, they are made here. The layouts follow the repository and the Hub and were not checked against the real files.
The answers of `test` are not published. Letters are read by the rules that VLMEvalKit applies before it asks a chat
model, and circular accuracy is VLMEvalKit's too (both checked by running it). An answer that it would ask about counts
as unparsable, with a score of 0, as under its `exact_matching`. Prompt and rotations are those of LLaVA's
model_vqa_mmbench.py.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Base64, Record, tsv_records
from tokenprune.evals.tasks.base.choices import Choice, checked_letter, format_options, infer_letter
from tokenprune.evals.tasks.base.metric import Metric, Ratio
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, points

COPY = 1_000_000
LETTERS = "ABCDEFGH"


def _published(path: Path) -> list[Record]:
    """Return the rows of a table. Its image cells may hold the index of another row, which has the image."""
    records, rows = tsv_records(path), []
    texts = {record.text("index"): record.text("image") for record in records}
    for record in records:
        text = texts.get(record.text("image"), record.text("image"))
        image = Base64(f"{record.where}, image", f"{path.name}:{record['index']}", text)
        rows.append(record.with_fields(image=image).in_split(record.text_or_empty("split")))
    return rows


@dataclass(frozen=True)
class MmBench(FileTask[Choice]):
    """Circular accuracy: the share of questions right in all rotations; and accuracy, of the first rotation."""

    metric: ClassVar[str] = "circular accuracy"
    of_groups: ClassVar[bool] = True
    forms: ClassVar[tuple[Form, ...]] = (Form(("*.tsv",), _published), *hub("en"))

    def questions(self, records: Sequence[Record], folder: Path, style: Style) -> list[Choice]:
        questions = [self.question(record, folder, style) for record in records]
        copies = Counter(question.group for question in questions)
        return [
            rotated
            for question in questions
            for rotated in ([question] if copies[question.group] > 1 else self._rotated(question, style))
        ]

    def question(self, record: Record, folder: Path, style: Style) -> Choice:
        options = {letter: record.text_or_empty(letter) for letter in LETTERS if record.text_or_empty(letter)}
        hint, index = record.text_or_empty("hint"), record.integer("index")
        question = f"{hint}\n{record.text('question')}" if hint else record.text("question")
        instead = "the test split has no answers; use --split dev"
        letter = checked_letter(options, record.text_or_empty("answer"), record.where, instead)
        return Choice(
            task=self.name,
            id=f"{self.name}-{index}",
            images=(record.image(),),
            text=style.choice(question, format_options(options)),
            split=record.split,
            category=record.text_or_empty("category"),
            group=str(index % COPY),
            options=options,
            letter=letter,
            read=infer_letter,
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        scores, groups = points(answered), [question.group for question, _ in answered]
        return {
            self.metric: Metric.of(Ratio.mean_of_groups(scores, groups, min)),
            "accuracy": Metric.of(Ratio.mean_of_groups(scores, groups, lambda rotations: rotations[0])),
        }

    def _rotated(self, question: Choice, style: Style) -> list[Choice]:
        letters, texts = list(question.options), list(question.options.values())
        stem = question.text.removesuffix(style.choice("", format_options(question.options)))
        rotations = []
        for rotation in range(len(letters)):
            options = dict(zip(letters, texts[rotation:] + texts[:rotation], strict=True))
            letter = letters[(letters.index(question.letter) - rotation) % len(letters)]
            text = style.choice(stem, format_options(options))
            name = f"{self.name}-{int(question.group) + rotation * COPY}"
            rotations.append(replace(question, id=name, text=text, options=options, letter=letter))
        return rotations
