"""Tests check the annotations of every call in `tokenprune`, unlike users' processes."""

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from tokenprune.selection.budgets import budget, n_reaching
from tokenprune.sequence.packing import inverse


def test_a_tensor_has_the_shape_of_its_annotation() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'scores'"):
        n_reaching(torch.ones(2, 3), 0.5)
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'valid'"):
        inverse(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool), 5)


def test_other_arguments_have_their_type() -> None:
    wrong: int = 36.0  # pyright: ignore[reportAssignmentType]
    with pytest.raises(BeartypeCallHintViolation, match="n_visual"):
        budget(wrong, 0.25, None)


@pytest.mark.usefixtures("unchecked")
def test_unchecked_turns_both_off() -> None:
    wrong: int = 36.0  # pyright: ignore[reportAssignmentType]
    assert budget(wrong, 0.25, None) == 9
    assert n_reaching(torch.ones(1, 4), 0.5) == 1
