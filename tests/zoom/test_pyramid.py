"""The levels of a large image: their tiles, views and boxes."""

from __future__ import annotations

import pytest
from PIL import Image

from tokenprune.errors import SettingError
from tokenprune.zoom.pyramid import View, as_rgb, pyramid, thumbnail


def grids(width: int, height: int, tile: int) -> list[tuple[int, int]]:
    return [(level.rows, level.columns) for level in pyramid(width, height, tile)]


def test_levels_of_the_papers_example() -> None:
    assert grids(4000, 4000, 336) == [(3, 3), (6, 6), (12, 12)]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (336, 200, []),  # fits into one tile
        (337, 100, [(1, 2)]),
        (1008, 1008, [(3, 3)]),
        (1009, 1009, [(4, 4)]),  # without (3, 3) before it
        (1513, 1513, [(3, 3), (5, 5)]),
        (2016, 1008, [(2, 3), (3, 6)]),
        (5400, 2700, [(2, 3), (5, 9), (9, 17)]),
        (30, 4000, [(3, 1), (6, 1), (12, 1)]),
    ],
)
def test_levels_of_other_sizes(width: int, height: int, expected: list[tuple[int, int]]) -> None:
    assert grids(width, height, 336) == expected


@pytest.mark.parametrize(("width", "height"), [(5400, 2700), (337, 100), (1009, 2000)])
def test_tiles_cover_the_image_and_never_overlap(width: int, height: int) -> None:
    for level in pyramid(width, height, 336):
        boxes = [view.box for view in level.views()]
        assert len(boxes) == level.rows * level.columns
        assert max(box[2] for box in boxes) >= width - 1e-6
        assert max(box[3] for box in boxes) >= height - 1e-6
        for view in level.views():
            assert level.tile_at(view.box[0] + 0.25, view.box[1] + 0.25) == (view.row, view.column)
        # Every tile shows some of the image.
        assert all(box[0] < width and box[1] < height for box in boxes)


def test_a_tile_is_what_lies_in_its_box_and_black_beyond_the_edge() -> None:
    image = Image.new("RGB", (60, 40), "red")
    image.paste((0, 0, 255), (30, 0, 60, 40))
    (level,) = pyramid(60, 40, 30)
    assert (level.rows, level.columns) == (2, 2)
    blue, below = level.view(0, 1).crop(image, 30), level.view(1, 0).crop(image, 30)
    assert blue.size == (30, 30)
    assert blue.getcolors() == [(900, (0, 0, 255))]
    assert sorted(below.getcolors()) == [(300, (255, 0, 0)), (600, (0, 0, 0))]


def test_a_view_is_shown_in_whole_pixels() -> None:
    assert str(View((0.4, 10.7, 99.6, 20.0), 1, 2, 3)) == "level 1, row 2, column 3 (0, 11, 100, 20)"
    assert str(View((0.0, 0.0, 9.0, 9.0))) == "thumbnail (0, 0, 9, 9)"


def test_the_thumbnail_is_the_whole_image_in_a_square() -> None:
    view = thumbnail(60, 40)
    small = view.crop(Image.new("RGB", (60, 40), "red"), 30)
    assert small.size == (30, 30)
    assert sorted(small.getcolors()) == [(300, (0, 0, 0)), (600, (255, 0, 0))]
    assert view.in_whole((0.0, 0.0, 1.0, 2 / 3)) == pytest.approx((0, 0, 60, 40))


def test_a_box_in_a_view_is_mapped_to_the_whole_image() -> None:
    assert View((100.0, 200.0, 300.0, 400.0)).in_whole((0.5, 0.0, 1.0, 0.25)) == (200, 200, 300, 250)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_not_cut_off(mode: str) -> None:
    image = Image.new(mode, (4, 3))
    with pytest.raises(SettingError, match=r"more than 8 bits .* Scale it, one of 16 bits like this"):
        as_rgb(image)
    if mode == "I;16":
        image.putpixel((3, 0), 32768)
        scaled = image.convert("I").point(lambda level: level / 257).convert("L")  # as the error says
        assert as_rgb(scaled).getpixel((3, 0)) == (127, 127, 127)
