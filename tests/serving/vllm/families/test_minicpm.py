"""Where MiniCPM-V 4.7 places an overview and its slices on one canvas."""

# pyright: reportMissingImports=false

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.served.engine import check_equal, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU
from helpers.served.marks import MINICPM_IMAGE
from helpers.served.reference import Request
from helpers.served.stored import save

from tokenprune.tokens import Layout

pytestmark = needs_vllm
#: Which tokens of a placeholder are visual: an overview and rows of slices, each after a marker.
OVERVIEW, SLICE, ROW_END = "-vvvv-", "-vv-", "n"


@pytest.mark.parametrize(
    ("placeholder", "columns"),
    [
        (OVERVIEW, 1),
        (OVERVIEW + SLICE, 1),
        (OVERVIEW + SLICE * 3, 3),
        (OVERVIEW + ROW_END.join([SLICE] * 3), 1),
        (OVERVIEW + ROW_END.join([SLICE * 3] * 2), 3),
    ],
)
def test_how_many_slices_are_side_by_side(placeholder: str, columns: int) -> None:
    from tokenprune.serving.vllm.models.minicpm import n_columns

    assert n_columns(torch.tensor([token == "v" for token in placeholder])) == columns


def test_an_overview_is_stretched_over_its_slices() -> None:
    from tokenprune.serving.vllm.models.minicpm import canvas_offsets

    overview, slice_ = Layout.raster((1, 2, 2)), Layout.raster((1, 2, 3))
    stretched, *slices = canvas_offsets([overview, *[slice_] * 4], 2)
    assert stretched.tolist() == [[0, 0, 0], [0, 0, 5], [0, 3, 0], [0, 3, 5]]
    own = [[0, row, column] for row in range(2) for column in range(3)]
    assert [one.tolist() for one in slices] == [own] * 4
    (alone,) = canvas_offsets([overview], 1)
    assert alone.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]


@pytest.mark.slow
def test_rows_of_slices(tmp_path: Path) -> None:
    """Two rows of two slices give the same answers as in transformers, alone and after another image."""
    save("minicpmv4_7", tmp_path)
    i, square = MINICPM_IMAGE, (1, 224, 224)
    requests = [Request(f"w1 {i} w2", (square,)), Request(f"w1 {i} w2 {i} w3", ((2, 140, 112), square))]
    answers = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, "TokenPruneMiniCPMV4_7", FOPRU) as llm:
        outputs, marker = served(llm, requests), llm.get_tokenizer().convert_tokens_to_ids("<slice>")
    assert outputs[0].prompt_token_ids.count(marker) == 4
    for output, answer in zip(outputs, answers, strict=True):
        check_equal(output, answer)
