"""VQA's soft accuracy and its answer normalisation, by the rules of the official scripts.

Written from what VQA's script (GT-Vision-Lab/VQA, vqaEval.py) and TextVQA's (EvalAI's answer processor, as LLaVA's
m4c_evaluator.py has it) do; checked by reading them, and not by running them.
"""

import re
from collections.abc import Sequence

ARTICLES = frozenset({"a", "an", "the"})

_COUNTED = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBERS = {word: str(value) for value, word in enumerate(_COUNTED)} | {"none": "0"}

MARKS = ';/[]"{}()=+\\_-><@`,?!'

#: Those that the official script knows; words that are words without the apostrophe too (its, hell, ill) are not there.
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
#: A word that lacks one of its apostrophes, to the word.
CONTRACTIONS = {
    word[:at] + word[at + 1 :]: word for word in _CONTRACTED.split() for at, letter in enumerate(word) if letter == "'"
}


def normalise(answer: str) -> str:
    """Return the answer in the form in which answers are compared.

    Lower case, without articles, number words as digits, apostrophes put back into contractions. A period stays before
    a digit only. Another mark goes if a space is beside it anywhere in the answer, or if there is a comma between
    digits (100,978); else it becomes a space.
    """
    given = re.sub(r"\s", " ", answer.lower()).strip()
    joined = re.search(r"\d,\d", given)
    table = {mark: "" if joined or f"{mark} " in given or f" {mark}" in given else " " for mark in MARKS}
    text = re.sub(r"\.(?!\d)", "", given.translate(str.maketrans(table)))
    words = (NUMBERS.get(word, word) for word in text.split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def soft_accuracy(answer: str, answers: Sequence[str]) -> float:
    """Return VQAv2's min(1, matches / 3), averaged over leaving each of the people's `answers` out once.

    As in the official script, people's answers are normalised only where they differ from each other, but the model's
    always is: where all ten say `t-shirt`, it is not matched by the normal form `t shirt`.
    """
    truths = [re.sub(r"[\n\t]", " ", truth).strip() for truth in answers]
    if len(set(truths)) > 1:
        truths = [normalise(truth) for truth in truths]
    return _of_ten(normalise(answer), truths)


def normal_accuracy(answer: str, answers: Sequence[str]) -> float:
    """Return TextVQA's accuracy: the same average, with all answers normalised, and commas, question marks and `'s`
    split off before."""
    return _of_ten(_normal(answer), [_normal(truth) for truth in answers])


def _normal(answer: str) -> str:
    return normalise(answer.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


def _of_ten(given: str, truths: Sequence[str]) -> float:
    matches = sum(truth == given for truth in truths)
    return sum(min(1.0, (matches - (truth == given)) / 3) for truth in truths) / len(truths)
