"""Multiple choice: options by letter, and the letter in a free answer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from tokenprune.evals.sample import Sample


@dataclass(frozen=True, kw_only=True)
class Choice(Sample):
    """`options` are the texts by letter, `letter` is the right one. `is_strict`: answers are read by `infer_letter`."""

    options: Mapping[str, str]
    letter: str
    is_strict: bool = False

    def score(self, answer: str) -> float | None:
        """Return 1 for the right option, None where the answer names none or several."""
        given = (infer_letter if self.is_strict else read_letter)(answer, self.options)
        return None if given is None else float(given == self.letter)


def lettered(options: Sequence[str]) -> dict[str, str]:
    return dict(zip(ascii_uppercase, options, strict=False))


def listed(options: Mapping[str, str]) -> str:
    """Return the options one a line, `A. text`, as LLaVA-1.5 was taught them."""
    return "\n".join(f"{letter}. {text}" for letter, text in options.items())


def read_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the option that an answer means, None where it means none or more than one.

    Read are, in this order: the letter alone or in front (`B`, `(B)`, `B. red`, `B: red`); a letter that is announced
    (`the answer is B`, `option B`); the one letter in brackets; the text of an option; the one option whose text is
    in the answer. A word `a` is no letter: "a red car" means the option with that text.
    """
    text, letters = answer.strip(), "".join(options)
    if match := re.match(rf"\(?([{letters}])(?:\)|[.:,]|\s*$|\s*\n)", text):
        return match[1]
    if match := re.fullmatch(rf"\(?([{letters.lower()}])\)?\.?", text):
        return match[1].upper()
    announced = set(re.findall(rf"(?i:answer|option|choice)(?i:\s+is)?:?\s*\(?([{letters}])\b", text))
    if len(announced) == 1:
        return announced.pop()
    bracketed = set(re.findall(rf"\(([{letters}])\)", text))
    if len(bracketed) == 1:
        return bracketed.pop()
    said = _plain(text)
    same = [letter for letter, option in options.items() if _plain(option) == said]
    within = [letter for letter, option in options.items() if re.search(rf"\b{re.escape(_plain(option))}\b", said)]
    for found in (same, within):
        if len(found) == 1:
            return found[0]
    return None


def infer_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the option that an answer means by VLMEvalKit's rules, None where they would ask a chat model.

    That is the one capital letter that is a word, marks taken off, but an A among more than three words is an article;
    else the one option whose text is in the answer, whatever its case.
    """
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", answer).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and not (named == ["A"] and len(words) > 3):
        return named[0]
    within = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return within[0] if len(within) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.lower().strip().rstrip(".").split())
