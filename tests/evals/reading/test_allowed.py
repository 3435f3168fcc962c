"""A data set cannot read files outside its folder, or images too large to trust, unless the user allows it."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import pytest
from helpers.files.sets import save
from helpers.files.tasks import SETS
from PIL import Image

from tokenprune.errors import DataError
from tokenprune.evals.reading.allowed import allowing, find_inside
from tokenprune.evals.reading.images import open_image, size_of
from tokenprune.evals.tasks import TASKS

#: For every field that names an image: (task, file, function that changes the name of the first image in its content).
NAMED: list[tuple[str, str, Callable[[Any, str], object]]] = [
    ("refcoco", "instances.json", lambda content, name: content["images"][0].update(file_name=name)),
    ("vqav2", "v2_OpenEnded_mscoco_val2014_questions.json", lambda content, name: content.update(data_subtype=name)),
    ("own", "questions.jsonl", lambda content, name: content.update(image=name)),
    ("pope", "coco_pope_random.json", lambda content, name: content.update(image=name)),
    ("textvqa", "TextVQA_0.5.1_val.json", lambda content, name: content["data"][0].update(image_id=name)),
    ("gqa", "testdev_balanced_questions.json", lambda content, name: content["201"].update(imageId=name)),
    ("vizwiz", "val.json", lambda content, name: content[0].update(image=name)),
    ("chartqa", "test/test_human.json", lambda content, name: content[0].update(imgname=name)),
    ("docvqa", "val_v1.0_withQT.json", lambda content, name: content["data"][0].update(image=name)),
    ("lrsvqa", "LRS_VQA_merged.jsonl", lambda content, name: content.update(image=name)),
    ("visual7w", "dataset_v7w_pointing.json", lambda content, name: content["images"][0].update(filename=name)),
    ("scienceqa", "problems.json", lambda content, name: content["7"].update(image=name)),
    ("seedbench", "SEED-Bench.json", lambda content, name: content["questions"][0].update(data_id=name)),
    ("ai2d", "questions/0.png.json", lambda content, name: content.update(imageName=name)),
]


def rename(path: Path, change: Callable[[Any, str], object], name: str) -> None:
    first, *others = path.read_text().splitlines(keepends=True)
    content = json.loads(first)
    change(content, name)
    path.write_text(json.dumps(content) + ("\n" if others else "") + "".join(others))


@pytest.mark.parametrize(("task", "file", "change"), NAMED)
@pytest.mark.parametrize("form", ["absolute", "above"])
def test_names_that_lead_out(
    tmp_path: Path, task: str, file: str, change: Callable[[Any, str], object], form: str
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    SETS[task, "published"](folder)
    (folder / "ai2d_test_ids.csv").unlink(missing_ok=True)
    for ending in ("", ".jpg", "_000000000042.jpg"):
        save(tmp_path / f"secret{ending}")
        save(tmp_path / f"COCO_secret{ending}")
    rename(
        folder / file,
        change,
        str(tmp_path / "secret") if form == "absolute" else "../" * 12 + str(tmp_path / "secret")[1:],
    )
    with pytest.raises(DataError, match=rf"missing image .*secret|secret.*, outside .*add --image-root {tmp_path}"):
        TASKS[task].load(folder)


def test_links_are_followed_into_named_folders_only(tmp_path: Path) -> None:
    """A link out of the folder is followed only into a root that the user names; one within it always."""
    folder = tmp_path / "set"
    folder.mkdir()
    SETS["vizwiz", "published"](folder)
    image = folder / "val" / "VizWiz_val_00000001.jpg"
    image.rename(folder / "inside.jpg")
    image.symlink_to(folder / "inside.jpg")
    assert TASKS["vizwiz"].load(folder)
    image.unlink()
    save(tmp_path / "store" / "a.jpg")
    image.symlink_to(tmp_path / "store" / "a.jpg")
    with pytest.raises(DataError, match=rf"val\.json\[0\]: image 'val/.*, outside .*--image-root {tmp_path}/store"):
        TASKS["vizwiz"].load(folder)
    with allowing(image_roots=[tmp_path / "store"]):
        assert TASKS["vizwiz"].load(folder)
    (tmp_path / "linked").symlink_to(folder)
    image.unlink()
    (folder / "inside.jpg").rename(image)
    assert TASKS["vizwiz"].load(tmp_path / "linked")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_with_accents_is_found_in_either_encoding(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    stored, named = normalize(form, "Café.png"), normalize("NFC" if form == "NFD" else "NFD", "Café.png")
    save(tmp_path / stored)
    assert find_inside(tmp_path, [named], "line 1") == tmp_path / stored
    (tmp_path / stored).unlink()
    save(tmp_path.parent / "secret.png")
    (tmp_path / stored).symlink_to(tmp_path.parent / "secret.png")
    with pytest.raises(DataError, match="outside the data folder"):
        find_inside(tmp_path, [named], "line 1")


def bomb(side: int) -> bytes:
    """Return a PNG of a few hundred bytes that claims to be a square with this side."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("read", [open_image, size_of])
@pytest.mark.parametrize("side", [14_000, 30_000])  # above Pillow's limits for a warning and for an error
def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path, read: Callable[[Path], object], side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side))
    with pytest.raises(DataError, match=rf"bomb\.png: an image of {side**2} pixels.*--max-image-pixels {side**2}$"):
        read(path)


def test_a_text_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    content, text = path.read_bytes(), b"k\0\0" + zlib.compress(bytes(100_000_000))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    path.write_bytes(content[:33] + chunk + content[33:])
    with pytest.raises(DataError, match=r"a\.png: truncated or broken image \((?i:.*too large)"):
        open_image(path)


def test_large_images_that_the_user_allows(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (14_000, 13_000)).save(path)
    before = Image.MAX_IMAGE_PIXELS
    with allowing(max_image_pixels=182_000_000):
        assert size_of(path) == (14_000, 13_000)
    with allowing(max_image_pixels=100), pytest.raises(DataError, match="at most 100 are decoded"):
        size_of(path)
    assert before == Image.MAX_IMAGE_PIXELS
