"""Words that mean the same, by WordNet (https://wordnet.princeton.edu)."""

from collections.abc import Sequence
from typing import Any

from tokenprune.errors import DataError
from tokenprune.evals.tasks._base.short_answers import exact, plain


def wordnet() -> Any:
    """Return nltk's reader of WordNet. DataError where WordNet itself was not downloaded."""
    from nltk.corpus import wordnet  # takes a second to import, and other tasks have no use for it

    try:
        wordnet.ensure_loaded()
    except LookupError:
        message = "this task takes synonyms for right and finds no WordNet; type `python -m nltk.downloader wordnet`"
        raise DataError(message) from None
    return wordnet


def exact_or_synonym(answer: str, answers: Sequence[str]) -> float:
    """Return 1 for an answer that is `exact`, and for one that has a meaning in common with one of the answers.

    Looked up is the text as it is, as in LRS-VQA's scorer; WordNet joins words by `_`, so those with a space have none.
    """
    if exact(answer, answers):
        return 1.0
    meanings = set(wordnet().synsets(plain(answer)))
    return float(any(meanings & set(wordnet().synsets(plain(truth))) for truth in answers))
