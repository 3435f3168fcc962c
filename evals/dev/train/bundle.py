"""Write the bundled scenes in the formats of COCO, RefCOCO and VQAv2: `python -m tokenprune.evals.dev.train.bundle`."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from tokenprune.evals.dev.train.assets import load_assets, nouns
from tokenprune.evals.dev.train.questions import Question, rec_questions, vqa_questions
from tokenprune.evals.dev.train.scenes import SIDE, Scene, draw_scene

SEED = 20261124
VQA_PER_SCENE = 4


@dataclass(frozen=True)
class Split:
    """A number of scenes. held_out_cutouts, held_out_backgrounds: of those that training never saw."""

    name: str
    count: int
    held_out_cutouts: bool
    held_out_backgrounds: bool


SPLITS = Split("val", 260, False, True), Split("test", 90, True, True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=Path, required=True, help="folder that sources.py filled")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    write_scenes(args.sources, args.output)


def write_scenes(sources: Path, output: Path, splits: Sequence[Split] = SPLITS, seed: int = SEED) -> None:
    """images/*.jpg, instances.json, refs(tokenprune).json, questions.json and annotations.json."""
    (output / "images").mkdir(parents=True, exist_ok=True)
    instances, categories = empty_instances("tokenprune scenes: cut-outs on held-out backgrounds", seed)
    refs: list[dict] = []
    questions: list[dict] = []
    annotations: list[dict] = []
    rng = random.Random(seed)
    for split in splits:
        assets = load_assets(
            sources, held_out_cutouts=split.held_out_cutouts, held_out_backgrounds=split.held_out_backgrounds
        )
        for number in tqdm(range(split.count), desc=split.name):
            scene = draw_scene(rng, assets.cutouts, assets.backgrounds, 2 + number % 4)
            image_id = len(instances["images"]) + 1
            name = f"{split.name}_{image_id:06d}.jpg"
            Image.fromarray(scene.pixels).save(output / "images" / name, quality=90)
            image = {
                "id": image_id,
                "file_name": name,
                "width": SIDE,
                "height": SIDE,
                "license": 1,
                "split": split.name,
            }
            instances["images"].append(image)
            add_boxes(scene, image_id, name, split.name, categories, instances["annotations"], refs)
            _add_questions(rng, scene, image_id, questions, annotations)
    write_set(output, instances, refs, questions, annotations)


def empty_instances(description: str, seed: int) -> tuple[dict, dict[str, int]]:
    """COCO's `instances.json` without pictures, and the numbers of its categories."""
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


def _add_questions(
    rng: random.Random, scene: Scene, image_id: int, questions: list[dict], annotations: list[dict]
) -> None:
    asked = vqa_questions(rng, scene, nouns())
    for question in rng.sample(asked, min(VQA_PER_SCENE, len(asked))):
        add_question(question, image_id, questions, annotations)


def add_question(question: Question, image_id: int, questions: list[dict], annotations: list[dict]) -> None:
    """One question and its ten answers, which are one."""
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


if __name__ == "__main__":
    main()
