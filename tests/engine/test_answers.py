"""Where a prompt ends that training goes on with its answers."""

from __future__ import annotations

import pytest
import torch

from tokenprune.sequence.packing import IGNORED_LABEL, PromptTokens

#: Of each row, what its columns are: padding, text, a visual token, a label; and how many of them are asked.
ROWS = {
    "a question and its answer": ("tvvttll", 5),
    "padded on the left": ("..vvttl", 6),
    "padded on the right": ("vvttl..", 4),
    "two turns about one image": ("vvttllttll", 4),
    "an image in the second turn": ("vvtllvttll", 8),
    "no labels": ("vvttt", 5),
    "labels of all text": ("lvvlll", 6),
    "a prompt that ends in its image": ("ttvvll", 6),
    "no image": ("tttll", 3),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_question_ends_at_its_label(row: str) -> None:
    columns, n_asked = ROWS[row]
    visual, real = (torch.tensor([[one in kinds for one in columns]]) for kinds in ("v", "tvl"))
    labels = torch.tensor([[7 if one == "l" else IGNORED_LABEL for one in columns]])
    prompt = PromptTokens.of({"image": visual}, {"image": None}, real)
    asked = prompt.without_answers(labels)
    assert asked.real[0].tolist() == [is_real and n < n_asked for n, is_real in enumerate(real[0].tolist())]
    assert torch.equal(asked.real, asked.real_cpu)
