"""VQA's soft accuracy and its answer normalisation, by the rules of the official scripts.

The scripts are VQA's (GT-Vision-Lab/VQA, vqaEval.py) and TextVQA's (EvalAI's answer processor, in MMF). On random
answers both agree with this file, in their copies in `lavis-gml` and `lmms-eval`: see
tests/evals/tasks/test_published_scorers.py.
"""

import re
from collections.abc import Sequence

from tokenprune.errors import DataError

ARTICLES = frozenset({"a", "an", "the"})

_COUNTED = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBERS = {word: str(value) for value, word in enumerate(_COUNTED)} | {"none": "0"}

MARKS = ';/[]"{}()=+\\_-><@`,?!'

#: The official script's contractions, which leave out words that also exist without the apostrophe (its, hell, ill).
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
#: A word without one of its apostrophes -> the word.
CONTRACTIONS = {
    word[:at] + word[at + 1 :]: word for word in _CONTRACTED.split() for at, letter in enumerate(word) if letter == "'"
}


def normalise(answer: str) -> str:
    """Return the answer in the form used for comparison.

    It is in lower case, without articles, with number words as digits and apostrophes restored in contractions. Only
    periods before a digit stay. Any other mark is removed if it is next to a space anywhere in the answer, or if there
    is a comma between digits (100,978); otherwise it becomes a space.
    """
    text = _without_marks(re.sub(r"[\n\t]", " ", answer).strip())
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _without_marks(text: str) -> str:
    joined = re.search(r"\d,\d", text)
    table = {mark: "" if joined or f"{mark} " in text or f" {mark}" in text else " " for mark in MARKS}
    return re.sub(r"\.(?!\d)", "", text.translate(str.maketrans(table)))


def two_or_more(answers: Sequence[str], where: str) -> tuple[str, ...]:
    """Return people's answers. DataError, naming `where`, if there are fewer than the metrics here need."""
    if len(answers) < 2:
        raise DataError(
            f"{where}: {len(answers)} answers; the metric leaves one out, so it needs at least two (most sets have ten)"
        )
    return tuple(answers)


def soft_accuracy(answer: str, answers: Sequence[str]) -> float:
    """Return VQAv2's min(1, matches / 3), averaged over leaving each of the people's `answers` out once.

    As in the official script, the model's answer is normalised, while people's answers only lose their marks, and only
    if they differ from each other. A published answer `two` can therefore not be matched, nor `t-shirt` if all ten are
    `t-shirt`. (Published answers are in lower case, with digits and without articles.)
    """
    truths = list(map(_without_marks, answers)) if len(set(answers)) > 1 else answers
    return _of_ten(normalise(answer), truths)


def normal_accuracy(answer: str, answers: Sequence[str]) -> float:
    """Return TextVQA's accuracy.

    It is the same average, with all answers normalised after commas and question marks are removed and `'s` split off.
    """
    return _of_ten(_normal(answer), [_normal(truth) for truth in answers])


def _normal(answer: str) -> str:
    return normalise(answer.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


def _of_ten(given: str, truths: Sequence[str]) -> float:
    matches = sum(truth == given for truth in truths)
    return sum(min(1.0, (matches - (truth == given)) / 3) for truth in truths) / len(truths)
