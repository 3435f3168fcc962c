"""Reading images and records."""

import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tokenprune.errors import DataError
from tokenprune.evals.reading.images import open_image, size_of
from tokenprune.evals.reading.records import line_records, tsv_records


def _half(mode: str = "RGB") -> Image.Image:
    """Return 40 x 20 px, with a red left half and a blue right half."""
    image = Image.new("RGB", (40, 20), "blue")
    image.paste((255, 0, 0), (0, 0, 20, 20))
    return image.convert(mode)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_exif_rotation_is_applied(name: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    _half().save(tmp_path / name, exif=exif)
    image = open_image(tmp_path / name)
    assert image.size == size_of(tmp_path / name) == (20, 40)
    assert image.getpixel((10, 5)) == (255, 0, 0)
    assert image.getpixel((10, 35)) == (0, 0, 255)


def test_an_orientation_that_does_not_exist(tmp_path: Path) -> None:
    """Otherwise boxes would be checked against an image that lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 9
    _half().save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == size_of(tmp_path / "a.jpg") == (40, 20)


@pytest.mark.parametrize("mode", ["L", "1", "I;16"])
def test_grey_images_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 3), 1 if mode == "1" else 255).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert image.mode == "RGB"
    assert image.size == (4, 3)
    red, green, blue = image.getpixel((0, 0))  # pyright: ignore[reportGeneralTypeIssues]
    assert red == green == blue


def test_grey_of_16_bits_is_scaled(tmp_path: Path) -> None:
    """It is not clipped at 255, which is almost black in 16 bits."""
    image = Image.new("I;16", (3, 1))
    for column, level in enumerate((0, 32896, 65535)):
        image.putpixel((column, 0), level)
    for name in ("a.png", "a.tiff"):
        image.save(tmp_path / name)
        opened = open_image(tmp_path / name)
        assert [opened.getpixel((column, 0)) for column in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]


@pytest.mark.parametrize(("mode", "level"), [("F", 0.5), ("I", 70000), ("I", -1), ("I", 255)])
def test_grey_of_an_unknown_range(tmp_path: Path, mode: str, level: float) -> None:
    Image.new(mode, (2, 2), level).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a\.tiff: grey from .* unknown which of them is white; save"):
        open_image(tmp_path / "a.tiff")


def test_transparent_is_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    image.save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert opened.mode == "RGB"
    assert opened.getpixel((0, 0)) == (255, 0, 0)
    assert opened.getpixel((3, 3)) == (255, 255, 255)


def _png(path: Path, bits: int, colour: int, pixels: bytes, transparent: bytes) -> None:
    """Write one row of four pixels. colour: 0 for grey, 2 for RGB."""
    header = struct.pack(">IIBBBBB", 4, 1, bits, colour, 0, 0, 0)
    chunks = (b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + pixels)), (b"IEND", b"")
    written = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))


@pytest.mark.parametrize(
    ("bits", "pixels", "transparent", "levels"),
    [
        (16, struct.pack(">4H", 0, 100, 101, 65535), 100, [0, 255, 0, 255]),
        (16, struct.pack(">4H", 0, 128, 32896, 65535), 32896, [0, 0, 255, 255]),
        (8, bytes([0, 128, 129, 255]), 128, [0, 255, 129, 255]),
        (4, bytes([0x03, 0x2F]), 3, [0, 255, 34, 255]),
        (2, bytes([0b00011011]), 2, [0, 85, 255, 255]),
    ],
)
def test_a_transparent_grey(bits: int, pixels: bytes, transparent: int, levels: list[int], tmp_path: Path) -> None:
    _png(tmp_path / "a.png", bits, 0, pixels, struct.pack(">H", transparent))
    opened = open_image(tmp_path / "a.png")
    assert [opened.getpixel((column, 0)) for column in range(4)] == [(level,) * 3 for level in levels]


def test_a_transparent_colour_of_16_bits(tmp_path: Path) -> None:
    """Pillow has read the colours in 8 bits, and compares those with it."""
    _png(tmp_path / "a.png", 16, 2, struct.pack(">12H", *range(12)), struct.pack(">3H", 3, 4, 5))
    with pytest.raises(ValueError, match=r"a\.png: colours of 16 bits, .* \(3, 4, 5\), is transparent; save"):
        open_image(tmp_path / "a.png")


def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    _half().resize((400, 300)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a\.jpg: truncated or broken image"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_a_warning_says_once_that_only_the_first_frame_is_read(tmp_path: Path, name: str) -> None:
    first, second = (Image.new("RGB", (6, 4), color) for color in ("red", "blue"))
    first.save(tmp_path / name, save_all=True, append_images=[second], lossless=True)
    with pytest.warns(UserWarning, match=rf"{name}: has several frames or pages, of which only the first") as caught:
        images = [open_image(tmp_path / name) for _ in range(2)]
    assert len(caught) == 1
    assert [image.getpixel((0, 0)) for image in images] == [(255, 0, 0)] * 2


def test_the_previews_in_a_photo_are_no_frames(tmp_path: Path) -> None:
    photo = Image.new("RGB", (6, 4), "red")
    photo.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[photo])
    with Image.open(tmp_path / "a.jpg") as file:
        assert getattr(file, "n_frames", 1) == 2
    open_image(tmp_path / "a.jpg")  # warnings are errors here


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("404 not found")
    with pytest.raises(ValueError, match=r"a\.jpg: not an image that Pillow can read; save it as PNG or JPEG$"):
        open_image(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "b.jpg")


# Lines and tables as records.


#: Separators that end a line for `str.splitlines`, but not in JSON or tables.
RARE = "\u2028\u2029\x85"


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    lines = [json.dumps({"question": f"{n}{RARE}?"}, ensure_ascii=False) for n in range(2)]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    records = line_records(path)
    assert [record["question"] for record in records] == [f"0{RARE}?", f"1{RARE}?"]
    assert [record.where for record in records] == [f"{path}, line 1", f"{path}, line 3"]


@pytest.mark.parametrize("quote", ["", '"'])
def test_nor_a_row_of_a_table(tmp_path: Path, quote: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(f"index\tquestion\n1\t{quote}a{RARE}\x0cb{quote}\n2\tc\n", encoding="utf-8")
    records = tsv_records(path)
    assert [record["question"] for record in records] == [f"a{RARE}\x0cb", "c"]
    assert [record.where for record in records] == [f"{path}, line 2", f"{path}, line 3"]


def test_blank_lines_of_a_table_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("index\tquestion\n1\ta\n\n2\tb\n\n", encoding="utf-8")
    assert [(record.where, record["question"]) for record in tsv_records(path)] == [
        (f"{path}, line 2", "a"),
        (f"{path}, line 4", "b"),
    ]


@pytest.mark.parametrize("value", ["9" * 400, "1e999", '"3"', "true"])
def test_a_number_is_finite(tmp_path: Path, value: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f'{{"start": {value}}}\n', encoding="utf-8")
    (record,) = line_records(path)
    with pytest.raises(DataError, match="line 1, 'start': expected a number"):
        record.number("start")
