"""Write a set in the formats of COCO, RefCOCO and VQAv2."""

from __future__ import annotations

import json
from pathlib import Path

from tokenprune.evals.dev.train.version_1.assets import nouns
from tokenprune.evals.dev.train.version_1.questions import Question, rec_questions
from tokenprune.evals.dev.train.version_1.scenes import Scene


def empty_instances(description: str, seed: int) -> tuple[dict, dict[str, int]]:
    """Return COCO's `instances.json` without images, and the numbers of its categories."""
    categories = {noun: index + 1 for index, noun in enumerate(nouns())}
    instances = {
        "info": {"description": description, "seed": seed},
        "licenses": [{"id": 1, "name": "GPL-2.0-or-later", "url": "https://www.gnu.org/licenses/old-licenses/gpl-2.0"}],
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": noun, "supercategory": "thing"} for noun, i in categories.items()],
    }
    return instances, categories


def write_set(output: Path, instances: dict, refs: list[dict], questions: list[dict], annotations: list[dict]) -> None:
    header = {
        "info": instances["info"],
        "license": instances["licenses"][0],
        "data_type": "mscoco",
        "data_subtype": "scenes",
    }
    write_json(output / "instances.json", instances)
    write_json(output / "refs(tokenprune).json", refs)
    write_json(output / "questions.json", {**header, "task_type": "Open-Ended", "questions": questions})
    write_json(output / "annotations.json", {**header, "annotations": annotations})


def add_boxes(
    scene: Scene, image_id: int, name: str, split: str, categories: dict[str, int], boxes: list[dict], refs: list[dict]
) -> None:
    expressions: dict[int, list[str]] = {}
    for question in rec_questions(scene):
        words = question.text.removeprefix("where is ").removesuffix("?")
        expressions.setdefault(question.about if question.about is not None else -1, []).append(words)
    for index, thing in enumerate(scene.things):
        x1, y1, x2, y2 = thing.box
        box = {
            "id": len(boxes) + 1,
            "image_id": image_id,
            "category_id": categories[thing.noun],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": thing.area,
            "iscrowd": 0,
        }
        boxes.append(box)
        if index not in expressions:
            continue
        first = sum(len(ref["sentences"]) for ref in refs)
        sentences = [
            {"sent_id": first + i, "raw": words, "sent": words, "tokens": words.split()}
            for i, words in enumerate(expressions[index])
        ]
        refs.append(
            {
                "ref_id": len(refs) + 1,
                "ann_id": box["id"],
                "image_id": image_id,
                "file_name": name,
                "category_id": box["category_id"],
                "split": split,
                "sent_ids": [s["sent_id"] for s in sentences],
                "sentences": sentences,
            }
        )


def add_question(question: Question, image_id: int, questions: list[dict], annotations: list[dict]) -> None:
    """Add one question with its ten answers, which are all the same."""
    question_id = image_id * 1000 + len(questions) % 1000
    questions.append({"image_id": image_id, "question": question.text, "question_id": question_id})
    kind = {"yes": "yes/no", "no": "yes/no"}.get(question.answer, "number" if question.kind == "count" else "other")
    annotations.append(
        {
            "image_id": image_id,
            "question_id": question_id,
            "question_type": question.kind,
            "answer_type": kind,
            "multiple_choice_answer": question.answer,
            "answers": [{"answer": question.answer, "answer_confidence": "yes", "answer_id": i + 1} for i in range(10)],
        }
    )


def write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, separators=(",", ":")) + "\n")
