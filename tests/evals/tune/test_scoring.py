"""Whether an answer means the same as the unpruned model's."""

from pathlib import Path

import pytest
from helpers.files.search import scenes

from tokenprune.evals.tune.scoring import agreement

POINT, BOX, NEAR, FAR = "[0.5, 0.5, 0.5, 0.5]", "[0.2, 0.2, 0.6, 0.6]", "[0.2, 0.2, 0.6, 0.5]", "[0.7, 0.7, 0.9, 0.9]"


@pytest.mark.parametrize(
    ("answer", "unpruned", "agrees"),
    [
        (BOX, BOX, 1),
        (NEAR, BOX, 1),
        (FAR, BOX, 0),
        (POINT, POINT, 1),  # a box without area overlaps nothing, not even itself
        (POINT, BOX, 0),
        ("Nowhere.", "nowhere", 1),
        ("nowhere", BOX, 0),
    ],
)
def test_boxes_agree_by_their_overlap_and_words_by_themselves(
    answer: str, unpruned: str, agrees: int, tmp_path: Path
) -> None:
    (question,) = scenes(tmp_path, 1)
    assert agreement(question, answer, unpruned) == agrees
