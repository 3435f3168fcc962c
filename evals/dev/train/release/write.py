"""Write a set in the formats of COCO, RefCOCO and VQAv2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tokenprune.evals.dev.train.release.choose import SEED, Asked
from tokenprune.evals.dev.train.scenes.ask import Question
from tokenprune.evals.dev.train.scenes.draw import SIGN, Scene
from tokenprune.evals.dev.train.vocabulary.nouns import nouns

QUALITY = 65  # of WebP; the model and its sets must fit into 100 MiB
LICENSE = {"id": 1, "name": "GPL-3.0-or-later", "url": "https://www.gnu.org/licenses/gpl-3.0.html"}
ANSWERS = 10  # per question, as in VQAv2; here all are the same


class SetFiles:
    """A set that grows image by image."""

    def __init__(self, folder: Path, description: str):
        self.folder = folder
        self.groups = {noun.name: noun.group for noun in nouns()} | {SIGN: SIGN}
        self.categories = {name: number for number, name in enumerate(sorted(self.groups), start=1)}
        self.info = {"description": description, "seed": SEED}
        self.images: list[dict[str, Any]] = []
        self.boxes: list[dict[str, Any]] = []
        self.refs: list[dict[str, Any]] = []
        self.n_sentences = 0
        self.questions: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        (folder / "images").mkdir(parents=True, exist_ok=True)

    def add(self, asked: Asked, split: str) -> None:
        image_id = len(self.images) + 1
        name = f"{split}_{image_id:06d}.webp"
        height, width = asked.scene.pixels.shape[:2]
        Image.fromarray(asked.scene.pixels).save(self.folder / "images" / name, quality=QUALITY, method=6)
        self.images.append(
            {"id": image_id, "file_name": name, "width": width, "height": height, "license": 1, "split": split}
        )
        self._add_boxes(asked.scene, asked.rec, self.images[-1])
        for number, question in enumerate(asked.vqa):
            self._add_question(question, image_id, 1000 * image_id + number)

    def write(self) -> None:
        categories = [
            {"id": n, "name": name, "supercategory": self.groups[name]} for name, n in self.categories.items()
        ]
        instances = {"images": self.images, "annotations": self.boxes, "categories": categories}
        self._write("instances.json", {"info": self.info, "licenses": [LICENSE], **instances})
        if self.refs:
            self._write("refs(tokenprune).json", self.refs)
        if self.questions:
            header = {"info": self.info, "license": LICENSE, "data_type": "mscoco", "data_subtype": "scenes"}
            self._write("questions.json", {**header, "task_type": "Open-Ended", "questions": self.questions})
            self._write("annotations.json", {**header, "annotations": self.annotations})

    def _write(self, name: str, content: object) -> None:
        (self.folder / name).write_text(json.dumps(content, separators=(",", ":")) + "\n")

    def _add_boxes(self, scene: Scene, expressions: Sequence[Question], image: dict[str, Any]) -> None:
        """`source` in the output is the file that a thing was cut from, so that anyone can check whether training saw
        it."""
        width, height = image["width"], image["height"]
        for index, thing in enumerate(scene.things):
            x1, y1, x2, y2 = (round(edge * side, 2) for edge, side in zip(thing.box, (width, height) * 2, strict=True))
            box = {"id": len(self.boxes) + 1, "image_id": image["id"], "category_id": self.categories[thing.noun]}
            place = {"bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)], "area": round((x2 - x1) * (y2 - y1), 1)}
            self.boxes.append({**box, **place, "iscrowd": 0, "source": thing.file})
            told = [question for question in expressions if question.about == (index,)]
            if told:
                self._add_ref(box, image, [_expression(question) for question in told])

    def _add_ref(self, box: dict[str, Any], image: dict[str, Any], expressions: Sequence[str]) -> None:
        first = self.n_sentences
        sentences = [
            {"sent_id": first + number, "raw": words, "sent": words, "tokens": words.split()}
            for number, words in enumerate(expressions)
        ]
        self.n_sentences += len(sentences)
        about = {"ref_id": len(self.refs) + 1, "ann_id": box["id"], "category_id": box["category_id"]}
        about |= {"image_id": image["id"], "file_name": image["file_name"], "split": image["split"]}
        self.refs.append({**about, "sent_ids": [sentence["sent_id"] for sentence in sentences], "sentences": sentences})

    def _add_question(self, question: Question, image_id: int, question_id: int) -> None:
        self.questions.append({"image_id": image_id, "question": question.text, "question_id": question_id})
        answer_type = (
            "yes/no" if question.answer in ("yes", "no") else "number" if question.kind == "count" else "other"
        )
        answers = [
            {"answer": question.answer, "answer_confidence": "yes", "answer_id": number + 1}
            for number in range(ANSWERS)
        ]
        about = {"image_id": image_id, "question_id": question_id, "question_type": question.kind}
        self.annotations.append(
            {**about, "answer_type": answer_type, "multiple_choice_answer": question.answer, "answers": answers}
        )


def _expression(question: Question) -> str:
    return question.text.removeprefix("where is ").removesuffix("?")
