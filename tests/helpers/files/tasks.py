"""Tiny sets, in each form in which a task's set is distributed according to its documentation.

`sets.json` and `video_sets.json` have the files of each set: how they are written, and what is in them. In records,
"<png>" and "<base64>" stand for an image.
"""

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from helpers.files.evals import write_refcoco, write_vqav2
from helpers.files.sets import png, save, write_json, write_lines, write_parquet, write_plain_parquet, write_tsv

Writers = dict[tuple[str, str], Callable[[Path], None]]
CONTENTS = json.loads(Path(__file__).with_name("sets.json").read_text())


def write_set(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    for name, written in files.items():
        ((kind, content),) = written.items()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        WRITERS[kind](folder / name, with_images(content))


def with_images(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: with_images(part) for name, part in content.items()}
    if isinstance(content, list):
        return [with_images(part) for part in content]
    return {"<png>": png(), "<base64>": base64.b64encode(png()).decode()}.get(content, content)


def write_frames(path: Path, levels: list[int]) -> None:
    """Write a video or, of one frame, an image."""
    from helpers.files.videos import grey, write_video  # skips the test if the library that writes videos is absent

    frames = [grey(level) for level in levels]
    if len(frames) > 1:
        write_video(path, frames)
    else:
        frames[0].save(path)


def vqav2_hub(folder: Path) -> None:
    answers = [{"answer": "yes" if i < 8 else "no", "answer_confidence": "yes", "answer_id": i + 1} for i in range(10)]
    rows = [{"question_id": 42000 + i, "question": f"Is it box {i}?", "answers": answers} for i in range(3)]
    write_parquet(folder / "data" / "validation-00000-of-00001.parquet", rows)


WRITERS: dict[str, Callable[[Path, Any], Any]] = {
    "json": write_json,
    "lines": write_lines,
    "tsv": write_tsv,
    "text": Path.write_text,
    "parquet": write_parquet,
    "parquet without images": write_plain_parquet,
    "image": lambda path, _: save(path),
    "grey frames": write_frames,
}


def writers(contents: dict[str, dict[str, Any]]) -> Writers:
    return {
        (task, form): partial(write_set, files=files)
        for task, forms in contents.items()
        for form, files in forms.items()
    }


#: (task, form) -> the function that writes it.
SETS: Writers = {
    **writers(CONTENTS),
    ("refcoco", "published"): write_refcoco,
    ("vqav2", "published"): write_vqav2,
    ("vqav2", "hub"): vqav2_hub,
}
VIDEO_SETS = writers(json.loads(Path(__file__).with_name("video_sets.json").read_text()))
