"""The experiment on aerial photographs, with known images and boxes, and the scaling table for one tile."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenprune import Random, Selection
from tokenprune.evals.dev.experiments import background_scaling
from tokenprune.evals.dev.experiments.aerial import draw
from tokenprune.evals.dev.experiments.aerial import measure as aerial
from tokenprune.evals.dev.experiments.aerial import photographs as aerial_photographs
from tokenprune.evals.dev.experiments.aerial.measure import Share, counted
from tokenprune.evals.dev.experiments.aerial.photographs import Photograph, photographs, read_boxes
from tokenprune.selection import Merge
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

VOC = """<annotation><object><name>Tree</name><bndbox>
<xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object></annotation>"""


def small() -> Photograph:
    """Return two tiles side by side, with 2 x 2 patches of 4 pixels each, and a strip that no tile covers."""
    boxes = np.array([[5.0, 1.0, 11.0, 3.0], [0.0, 0.0, 1.0, 1.0], [12.0, 4.0, 16.0, 8.0]])
    return Photograph("small", Image.new("RGB", (18, 9)), 8, (1, 2), boxes)


def test_boxes_are_read() -> None:
    assert read_boxes(VOC.format(1, 2, 3, 4).encode()).tolist() == [[1, 2, 3, 4]]
    assert read_boxes(b"<annotation></annotation>").shape == (0, 4)


def test_which_patches_are_on_trees() -> None:
    """The first tree covers a patch of each tile, the second the middle of no patch, the third a patch of the second
    tile."""
    inside = small().inside(4)
    assert inside.shape == (2, 4, 3)
    assert [tuple(place) for place in np.argwhere(inside).tolist()] == [(0, 1, 0), (1, 0, 0), (1, 3, 2)]
    assert [tile.size for tile in small().cut()] == [(8, 8), (8, 8)]


def test_counts_by_hand() -> None:
    inside = small().inside(4)
    merged = Merge(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([0.5, 0.5]))
    counts = counted(small(), inside, Selection(torch.tensor([0, 7]), 8, merged=merged))
    assert {name: count.tolist() for name, count in counts.items()} == {
        "tree_tokens": [0, 1],
        "tree_tokens_of": [1, 2],
        "background_tokens": [1, 0],
        "background_tokens_of": [3, 2],
        "trees": [0, 1],
        "trees_of": [1, 1],
        "tree_tokens_in_cluster": [1, 1],
        "background_tokens_in_cluster": [1, 0],
    }


def test_shares_of_all_tiles() -> None:
    part, whole = np.array([1, 0, 3, 2]), np.array([2, 0, 3, 5])
    share = Share.of(part, whole)
    assert share.value == 0.6
    assert 0 <= share.low < 0.6 < share.high <= 1


def test_a_wheel_that_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "deepforest-2.1.0-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(RuntimeError, match="is not the pinned file"):
        next(photographs(tmp_path, 8))


def test_photographs_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = io.BytesIO()
    Image.new("RGB", (20, 30)).save(image, "PNG")
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as archive:
        archive.writestr("deepforest/data/a.png", image.getvalue())
        archive.writestr("deepforest/data/a.xml", VOC.format(1, 2, 3, 4))
    monkeypatch.setattr(aerial_photographs, "FILES", {"a.png": "a.xml"})
    monkeypatch.setattr(aerial_photographs, "wheel", lambda *pinned: tmp_path / "some.whl")
    (found,) = photographs(tmp_path, 8)
    assert (found.tiles, found.boxes.tolist()) == ((3, 2), [[1, 2, 3, 4]])


def test_every_row_of_the_table(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    layout = Layout.concat([Layout.raster((1, 2, 2))] * 2)
    queries, keys = torch.randn(2, 2, 2, 5, 4, generator=generator)
    attention = VisionAttention(queries, keys, 0.5, 1, layout)
    statistics = {"vision_attention": attention, "pixels": torch.rand(2, 3, 8, 8, generator=generator)}
    tokens = VisualTokens(torch.randn(8, 6, generator=generator), layout, 0, statistics)
    rows = list(aerial.survivals([(small(), tokens)], 4))
    assert len(rows) == len(aerial.COMPARED) * len(aerial.KEEPS)
    for row in rows:
        if row.keep >= 4:
            assert row.trees.value == row.tree_tokens.value == row.background_tokens.value == 1.0
    assert len(aerial.table([asdict(row) for row in rows]).lines) == len(rows)
    assert isinstance(aerial.COMPARED["Random"], Random)
    draw.draw(small(), tokens, 4, tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size == (1400, 1520)


@pytest.mark.slow
def test_the_scaling_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rows.jsonl"
    background_scaling.main(["--tiles", "1", "2", "--rounds", "1", "--output", str(output)])
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["visual_tokens"], row["kept"]) for row in rows] == [(576, 24), (1152, 48)]
    assert "|1,152|" in "".join(capsys.readouterr().out.split())
