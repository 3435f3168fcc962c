"""Add questions to the bundled photographs, each written and answered by someone who looked at the image:
`python -m tokenprune.evals.dev.train.release.photographs --output DIR`.

`photographs.json` holds, for every image, questions with their answers, and boxes (left, top, right, bottom in
fractions of the image) with expressions that describe their contents.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from tokenprune.evals.dev.train.scenes.draw import SIGN
from tokenprune.evals.dev.train.vocabulary.nouns import nouns
from tokenprune.evals.models.bundled import PHOTOGRAPHS

LICENCES = "LICENSES.md"
COUNTS = re.compile(r"\d+( questions in VQAv2's layout and )\d+( boxes in RefCOCO's)")
#: Question types as in VQAv2: the words that a question begins with.
TYPES = ("how many", "is there a", "is the", "what color is the", "what is this", "what is on the")
#: Answers that are equally right, now that the model knows both words.
ALSO_RIGHT = {
    ("puffer_fish.jpg", "what is this?"): ("fish", "blowfish"),
    ("saturn.jpg", "what is this?"): ("saturn", "planet"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write the larger set to")
    args = parser.parse_args()
    asked = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    n_questions, n_expressions = extend(PHOTOGRAPHS, asked, args.output)
    print(f"{args.output}: {n_questions} questions and {n_expressions} expressions")


def extend(source: Path, asked: dict[str, Any], output: Path) -> tuple[int, int]:
    """Write the set in `source` to `output` with more questions. Those that it already has are not added again.

    Returns the numbers of questions and of expressions.
    """
    if output.resolve() != source.resolve():
        shutil.copytree(source, output, dirs_exist_ok=True)
    names = "instances", "refs(tokenprune)", "questions", "annotations"
    instances, refs, questions, answers = (_json(output / f"{name}.json") for name in names)
    images = {image["file_name"]: image for image in instances["images"]}
    _rename_categories(instances, refs)
    for file, of_image in asked.items():
        for text, answer in of_image["asked"].items():
            _add_question(images[file], text, answer, questions["questions"], answers["annotations"])
        for box in of_image["boxes"]:
            _add_box(images[file], box["box"], box["is"], instances, refs)
    _accept_both({image["id"]: file for file, image in images.items()}, questions["questions"], answers["annotations"])
    for name, content in zip(names, (instances, refs, questions, answers), strict=True):
        (output / f"{name}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    _say_how_many(output / LICENCES, len(questions["questions"]), len(refs))
    return len(questions["questions"]), sum(len(ref["sentences"]) for ref in refs)


def _say_how_many(file: Path, n_questions: int, n_boxes: int) -> None:
    text = file.read_text(encoding="utf-8")
    told, times = COUNTS.subn(rf"{n_questions}\g<1>{n_boxes}\g<2>", text)
    assert times == 1, f"{file}: no sentence like {COUNTS.pattern}"
    file.write_text(told, encoding="utf-8")


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _rename_categories(instances: dict[str, Any], refs: list[dict[str, Any]]) -> None:
    """Renumber the categories by the model's nouns."""
    old = {category["id"]: category["name"] for category in instances["categories"]}
    new = {name: number for number, name in enumerate(sorted([*(noun.name for noun in nouns()), SIGN]), start=1)}
    for record in [*instances["annotations"], *refs]:
        record["category_id"] = new[old[record["category_id"]]]
    instances["categories"] = [{"id": number, "name": name, "supercategory": "thing"} for name, number in new.items()]


def _add_question(
    image: dict[str, Any], text: str, answer: str, questions: list[dict[str, Any]], annotations: list[dict[str, Any]]
) -> None:
    if any(known["image_id"] == image["id"] and known["question"] == text for known in questions):
        return
    number = 1000 * image["id"] + sum(known["image_id"] == image["id"] for known in questions)
    questions.append({"image_id": image["id"], "question": text, "question_id": number})
    about = {"question_type": next(kind for kind in TYPES if text.startswith(kind)), "question_id": number}
    kind = "yes/no" if answer in ("yes", "no") else "number" if text.startswith("how many") else "other"
    given = {"image_id": image["id"], "answer_type": kind, "multiple_choice_answer": answer, "answers": _ten([answer])}
    annotations.append({**about, **given})


def _ten(answers: list[str] | tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"answer": answers[number % len(answers)], "answer_confidence": "yes", "answer_id": number + 1}
        for number in range(10)
    ]


def _accept_both(files: dict[int, str], questions: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> None:
    texts = {question["question_id"]: (files[question["image_id"]], question["question"]) for question in questions}
    for annotation in annotations:
        right = ALSO_RIGHT.get(texts[annotation["question_id"]])
        if right is not None:
            annotation["answers"] = _ten(right)


def _add_box(
    image: dict[str, Any],
    box: list[int | float],
    names: list[str],
    instances: dict[str, Any],
    refs: list[dict[str, Any]],
) -> None:
    known = {s["sent"] for ref in refs if ref["image_id"] == image["id"] for s in ref["sentences"]}
    new = [name for name in names if name not in known]
    if not new:
        return
    categories = {category["name"]: category["id"] for category in instances["categories"]}
    x1, y1, x2, y2 = (round(edge * side) for edge, side in zip(box, (image["width"], image["height"]) * 2, strict=True))
    about = {"image_id": image["id"], "category_id": categories[new[0].split()[-1]]}
    number = max(annotation["id"] for annotation in instances["annotations"]) + 1
    place = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
    instances["annotations"].append({"id": number, **about, **place})
    first = sum(len(ref["sentences"]) for ref in refs)
    sentences = [
        {"sent_id": first + i, "raw": name, "sent": name, "tokens": name.split()} for i, name in enumerate(new)
    ]
    ref = {"ref_id": len(refs) + 1, "ann_id": number, **about, "file_name": image["file_name"], "split": "photo"}
    refs.append({**ref, "sent_ids": [sentence["sent_id"] for sentence in sentences], "sentences": sentences})


if __name__ == "__main__":
    main()
