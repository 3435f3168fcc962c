"""VQA's soft accuracy and its answer normalisation, after the description at visualqa.org/evaluation.

Both are written from that description: lower case, no periods except in decimals, number words as digits, no articles,
apostrophes put back into contractions, all other punctuation a space (a comma between digits vanishes).
"""

import re
from collections.abc import Sequence

ARTICLES = frozenset({"a", "an", "the"})

_COUNTED = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBERS = {word: str(value) for value, word in enumerate(_COUNTED)} | {"none": "0"}

_NEGATED = "ai are ca could did do does had has have is might must need ought should was were wo would"
_WITH_ENDING = {
    "'s": "he how it let she somebody someone something that there what when where who why",
    "'re": "they you",
    "'ve": "could i might must should they we would you",
    "'ll": "how it somebody someone something that they what who you",
    "'d": "he how it she somebody someone that there they what where who you",
    "'m": "i",
}
# Words that are words without the apostrophe too (its, hell, shed, wed, ill, well) are left alone.
_AMBIGUOUS = frozenset({"its"})
CONTRACTIONS = {f"{verb}nt": f"{verb}n't" for verb in _NEGATED.split()} | {
    word + ending.replace("'", ""): word + ending
    for ending, words in _WITH_ENDING.items()
    for word in words.split()
    if word + ending.replace("'", "") not in _AMBIGUOUS
}


def normalise(answer: str) -> str:
    """Return the answer in the form in which answers are compared."""
    text = answer.lower().replace("\n", " ").replace("\t", " ")
    text = re.sub(r"(?<=\d),(?=\d)", "", text)  # 100,978 -> 100978
    text = re.sub(r"(?<!\d)\.|\.(?!\d)", "", text)  # periods go, decimal points stay
    text = re.sub(r"[^\w\s':.]", " ", text)  # apostrophes and colons carry meaning (possessives, times)
    words = (NUMBERS.get(word, word) for word in text.split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def soft_accuracy(answer: str, answers: Sequence[str]) -> float:
    """Return min(1, matches / 3), averaged over leaving each of the people's `answers` out once."""
    given, truths = normalise(answer), [normalise(truth) for truth in answers]
    matches = sum(truth == given for truth in truths)
    return sum(min(1.0, (matches - (truth == given)) / 3) for truth in truths) / len(truths)
