"""Tiny sets, in each form in which a task's set is distributed according to its documentation."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from helpers.files.choices import CHOICE_SETS
from helpers.files.evals import write_refcoco, write_vqav2
from helpers.files.sets import save, write_json, write_lines, write_parquet

POPE = [
    {
        "question_id": 1,
        "image": "COCO_val2014_000000000042.jpg",
        "text": "Is there a box in the image?",
        "label": "yes",
    },
    {"question_id": 2, "image": "COCO_val2014_000000000042.jpg", "text": "Is there a dog in the image?", "label": "no"},
]


def pope(folder: Path) -> None:
    write_lines(folder / "coco_pope_random.json", POPE)
    write_lines(folder / "coco_pope_popular.json", POPE)
    save(folder / "images" / "COCO_val2014_000000000042.jpg")


def pope_hub(folder: Path) -> None:
    for kind in ("random", "popular"):
        rows = [
            {"question_id": str(row["question_id"]), "question": row["text"], "answer": row["label"], "category": kind}
            for row in POPE
        ]
        write_parquet(folder / "Full" / f"{kind}-00000-of-00001.parquet", rows)


def textvqa(folder: Path) -> None:
    record = {
        "question": "what is written?", "image_id": "0a1b", "image_classes": ["Box"], "question_id": 34602,
        "question_tokens": ["what"], "answers": ["stop"] * 7 + ["shop"] * 3, "set_name": "val",
        "image_width": 60, "image_height": 40,
    }  # fmt: skip
    write_json(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": [record]})
    save(folder / "train_images" / "0a1b.jpg")


def textvqa_hub(folder: Path) -> None:
    row = {"question_id": 34602, "question": "what is written?", "answers": ["stop"] * 7 + ["shop"] * 3}
    write_parquet(folder / "data" / "validation-00000-of-00001.parquet", [row | {"image_id": "0a1b"}])


GQA = {"question": "What is the box on?", "imageId": "n1", "answer": "table", "types": {"structural": "query"}}


def gqa(folder: Path) -> None:
    write_json(folder / "testdev_balanced_questions.json", {"201": GQA})
    save(folder / "images" / "n1.jpg")


def gqa_hub(folder: Path) -> None:
    name = "testdev-00000-of-00001.parquet"
    path = folder / "testdev_balanced_instructions" / name
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist([GQA | {"id": "201"}]), path)
    write_parquet(folder / "testdev_balanced_images" / name, [{"id": "n1"}])


def vizwiz(folder: Path) -> None:
    answers = [{"answer": "unanswerable", "answer_confidence": "yes"}] * 8 + [{"answer": "box"}] * 2
    record = {"image": "VizWiz_val_00000001.jpg", "question": "What is this?", "answers": answers}
    write_json(folder / "val.json", [record | {"answer_type": "unanswerable", "answerable": 0}])
    save(folder / "val" / "VizWiz_val_00000001.jpg")


def vizwiz_hub(folder: Path) -> None:
    row = {"question_id": "VizWiz_val_00000001.jpg", "question": "What is this?", "category": "unanswerable"}
    answers = ["unanswerable"] * 8 + ["box"] * 2
    write_parquet(folder / "data" / "val-00000-of-00001.parquet", [row | {"answers": answers}])


def chartqa(folder: Path) -> None:
    write_json(folder / "test" / "test_human.json", [{"imgname": "1.png", "query": "How many?", "label": "40"}])
    write_json(folder / "test" / "test_augmented.json", [{"imgname": "1.png", "query": "Which?", "label": "Spain"}])
    save(folder / "test" / "png" / "1.png")


def chartqa_hub(folder: Path) -> None:
    rows = [
        {"type": "human_test", "question": "How many?", "answer": "40"},
        {"type": "augmented_test", "question": "Which?", "answer": "Spain"},
    ]
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows)


DOCVQA = {"questionId": 49153, "question": "What is the date?", "docId": 14465, "answers": ["1/8/93", "Jan 8, 1993"]}


def docvqa(folder: Path) -> None:
    record = DOCVQA | {"image": "documents/xnbl0037_1.png", "data_split": "val"}
    write_json(folder / "val_v1.0_withQT.json", {"dataset_split": "val", "data": [record]})
    save(folder / "spdocvqa_images" / "xnbl0037_1.png")


def docvqa_hub(folder: Path) -> None:
    write_parquet(folder / "DocVQA" / "validation-00000-of-00001.parquet", [DOCVQA | {"data_split": "val"}])


MME = [("Is there a box? Please answer yes or no.", "Yes"), ("Is there a dog? Please answer yes or no.", "No")]


def mme(folder: Path) -> None:
    text = "".join(f"{question}\t{answer}\n" for question, answer in MME)
    save(folder / "existence" / "0001.jpg")
    (folder / "existence" / "0001.txt").write_text(text)
    save(folder / "code_reasoning" / "images" / "0020.png")
    (folder / "code_reasoning" / "questions_answers_YN").mkdir()
    (folder / "code_reasoning" / "questions_answers_YN" / "0020.txt").write_text(text)


def mme_hub(folder: Path) -> None:
    rows = [
        {"question_id": f"{kind}/{name}", "question": question, "answer": answer, "category": kind}
        for kind, name in (("existence", "0001.jpg"), ("code_reasoning", "0020.png"))
        for question, answer in MME
    ]
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows)


def lrsvqa(folder: Path) -> None:
    record = {"question_id": "FAIR_1", "image": "LRS_FAIR/1.png", "text": "How many?\nAnswer with a number."}
    rows = [
        record | {"ground_truth": "3", "category": "count"},
        record | {"question_id": "FAIR_2", "ground_truth": "Red", "category": "color"},
        record | {"question_id": "FAIR_3", "ground_truth": "4", "category": "count"},
    ]
    write_lines(folder / "LRS_VQA_merged.jsonl", rows)
    save(folder / "image" / "LRS_FAIR" / "1.png")


def visual7w(folder: Path) -> None:
    corners = {1: (30, 10), 2: (0, 0), 3: (0, 20), 4: (45, 0)}
    boxes = [
        {"box_id": name, "image_id": 9, "name": "box", "x": x, "y": y, "width": 15, "height": 20}
        for name, (x, y) in corners.items()
    ]
    question = {
        "qa_id": 77, "question": "Which box is orange?", "type": "which", "answer": 1, "multiple_choices": [2, 4, 3],
    }  # fmt: skip
    images = [{"filename": "v7w_9.jpg", "image_id": 9, "split": "test", "qa_pairs": [question]}]
    write_json(folder / "dataset_v7w_pointing.json", {"dataset": "visual7w", "boxes": boxes, "images": images})
    save(folder / "images" / "v7w_9.jpg")


def refcoco_hub(folder: Path) -> None:
    rows = [
        {"question_id": "100", "question": "q", "answer": ["the orange box", "right thing"], "bbox": [30, 10, 15, 20]}
    ]
    write_parquet(folder / "data" / "testA-00000-of-00001.parquet", rows)


def vqav2_hub(folder: Path) -> None:
    answers = [{"answer": "yes" if i < 8 else "no", "answer_confidence": "yes", "answer_id": i + 1} for i in range(10)]
    rows = [{"question_id": 42000 + i, "question": f"Is it box {i}?", "answers": answers} for i in range(3)]
    write_parquet(folder / "data" / "validation-00000-of-00001.parquet", rows)


OWN = [
    {"id": "cup", "question": "What is it?", "answer": ["a box", "box"], "box": None, "kind": "names"},
    {"id": "there", "question": "the orange box", "answer": None, "box": [30, 10, 45, 30], "kind": None},
]


def own(folder: Path) -> None:
    rows = [{key: value for key, value in row.items() if value is not None} for row in OWN]
    write_lines(folder / "questions.jsonl", [{"image": "photos/1.png", "split": "val"} | row for row in rows])
    save(folder / "photos" / "1.png")


def own_table(folder: Path) -> None:
    write_parquet(folder / "questions.parquet", [row | {"split": "val"} for row in OWN])


#: (task, form) -> the function that writes it.
SETS: dict[tuple[str, str], Callable[[Path], None]] = {
    ("own", "published"): own,
    ("own", "hub"): own_table,
    ("refcoco", "published"): write_refcoco,
    ("refcoco", "hub"): refcoco_hub,
    ("vqav2", "published"): write_vqav2,
    ("vqav2", "hub"): vqav2_hub,
    ("pope", "published"): pope,
    ("pope", "hub"): pope_hub,
    ("textvqa", "published"): textvqa,
    ("textvqa", "hub"): textvqa_hub,
    ("gqa", "published"): gqa,
    ("gqa", "hub"): gqa_hub,
    ("vizwiz", "published"): vizwiz,
    ("vizwiz", "hub"): vizwiz_hub,
    ("chartqa", "published"): chartqa,
    ("chartqa", "hub"): chartqa_hub,
    ("docvqa", "published"): docvqa,
    ("docvqa", "hub"): docvqa_hub,
    ("mme", "published"): mme,
    ("mme", "hub"): mme_hub,
    ("lrsvqa", "published"): lrsvqa,
    ("visual7w", "published"): visual7w,
    **CHOICE_SETS,
}
