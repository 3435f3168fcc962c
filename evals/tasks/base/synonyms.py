"""Accept synonyms by WordNet (https://wordnet.princeton.edu)."""

from collections.abc import Sequence
from typing import Any

from tokenprune.errors import DataError
from tokenprune.evals.tasks.base.short_answers import exact, plain


def wordnet() -> Any:
    """Return nltk's reader of WordNet. DataError if WordNet has not been downloaded."""
    from nltk.corpus import wordnet  # takes a second to import, and other tasks do not need it

    try:
        wordnet.ensure_loaded()
    except LookupError:
        message = "this task accepts synonyms, and WordNet is missing; type `python -m nltk.downloader wordnet`"
        raise DataError(message) from None
    return wordnet


def exact_or_synonym(answer: str, answers: Sequence[str]) -> float:
    """Return 1 for an answer that is `exact`, or that shares a meaning with one of the answers.

    The text is looked up unchanged, as in LRS-VQA's scorer. WordNet joins words by `_`, so text with a space has no
    synonyms.
    """
    if exact(answer, answers):
        return 1.0
    meanings = set(wordnet().synsets(plain(answer)))
    return float(any(meanings & set(wordnet().synsets(plain(truth))) for truth in answers))
