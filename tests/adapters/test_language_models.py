"""LLaVA around every causal language model of transformers: what the stored table says of it is still true."""

import pytest
from helpers.families import VERSION
from helpers.models.language_models import TYPES, outcome, stored

pytestmark = pytest.mark.skipif(VERSION != (5, 24), reason="the stored table is that of another transformers")


def test_the_table_has_every_language_model() -> None:
    assert list(stored()) == TYPES


def test_nothing_is_wrong() -> None:
    assert not [name for name, found in stored().items() if "WRONG" in "".join(found)]


@pytest.mark.parametrize("window", [False, True], ids=["without windows", "with windows"])
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.filterwarnings("ignore")
def test_pruning_gives_what_the_table_says(name: str, window: bool) -> None:
    assert outcome(name, window) == stored()[name][window]
