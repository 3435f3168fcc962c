"""Tiny sets of questions about videos, in each form in which they are distributed according to their documentation."""

from collections.abc import Callable
from pathlib import Path

from helpers.files.sets import write_json, write_plain_parquet
from helpers.files.videos import grey, write_video

GREYS = [grey(level) for level in (20, 100, 180, 240)]
VIDEO_MME = {
    "video_id": "001", "duration": "short", "domain": "Knowledge", "videoID": "fFjv93ACGo8", "question_id": "001-1",
    "task_type": "Counting Problem", "question": "Which is it?", "answer": "B",
    "options": ["A. A box.", "B. A dog.", "C. A cat.", "D. None of these."],
}  # fmt: skip


def videomme(folder: Path) -> None:
    rows = [VIDEO_MME, VIDEO_MME | {"question_id": "002-1", "videoID": "N1cdUjctpG8", "duration": "long"}]
    write_plain_parquet(folder / "videomme" / "test-00000-of-00001.parquet", rows)
    write_video(folder / "data" / "fFjv93ACGo8.mp4", GREYS)
    write_video(folder / "data" / "N1cdUjctpG8.mkv", GREYS)


def mvbench(folder: Path) -> None:
    record = {"question": "Which is it?", "candidates": ["A box", "A dog", "A cat"], "answer": "A dog"}
    moved = record | {"video": "video_10009.mp4"}
    write_json(folder / "json" / "moving_count.json", [moved])
    write_json(folder / "json" / "action_sequence.json", [record | {"video": "ZS9XR.mp4", "start": 1.0, "end": 2.0}])
    write_json(folder / "json" / "episodic_reasoning.json", [record | {"video": "castle_s01", "start": 0, "end": 1}])
    write_video(folder / "video" / "clevrer" / "video_validation" / "video_10009.mp4", GREYS)
    write_video(folder / "video" / "data0613" / "star" / "Charades_v1_480" / "ZS9XR.mp4", GREYS)
    frames = folder / "video" / "tvqa" / "frames_fps3_hq" / "castle_s01"
    frames.mkdir(parents=True)
    for number, frame in enumerate(GREYS):
        frame.save(frames / f"{number:05}.jpg")


def egoschema(folder: Path) -> None:
    options = {f"option {number}": text for number, text in enumerate(["A box", "A dog", "A cat", "A cow", "None"])}
    questions = [{"q_uid": name, "question": "Which is it?", **options} for name in ("0074f737", "00aa7247", "ffff")]
    write_json(folder / "questions.json", questions)
    write_json(folder / "subset_answers.json", {"0074f737": 1, "00aa7247": 4})
    for name in ("0074f737", "00aa7247"):
        write_video(folder / "videos" / f"{name}.mp4", GREYS)


def egoschema_hub(folder: Path) -> None:
    row = {"question_idx": "1", "question": "Which is it?", "video_idx": "0074f737", "answer": "1"}
    options = ["A. A box", "B. A dog", "C. A cat", "D. A cow", "E. None"]
    write_plain_parquet(folder / "Subset" / "test-00000-of-00001.parquet", [row | {"option": options}])
    write_video(folder / "videos" / "0074f737.mp4", GREYS)


def activitynetqa(folder: Path) -> None:
    questions = [
        {"question": "which is it", "video_name": "1QIUV7WYKXg", "question_id": "v_1QIUV7WYKXg_3"},
        {"question": "is it a box", "video_name": "1QIUV7WYKXg", "question_id": "v_1QIUV7WYKXg_4"},
    ]
    answers = [
        {"answer": "dog", "type": 5, "question_id": "v_1QIUV7WYKXg_3"},
        {"answer": "no", "type": 3, "question_id": "v_1QIUV7WYKXg_4"},
    ]
    write_json(folder / "test_q.json", questions)
    write_json(folder / "test_a.json", answers)
    write_video(folder / "videos" / "v_1QIUV7WYKXg.mp4", GREYS)


#: (task, form) -> the function that writes it.
VIDEO_SETS: dict[tuple[str, str], Callable[[Path], None]] = {
    ("videomme", "hub"): videomme,
    ("mvbench", "published"): mvbench,
    ("egoschema", "published"): egoschema,
    ("egoschema", "hub"): egoschema_hub,
    ("activitynetqa", "published"): activitynetqa,
}
