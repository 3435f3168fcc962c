"""Multiple choice: options by letter, and the rule by which published scorers find the letter in a free answer."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from tokenprune.errors import DataError
from tokenprune.evals.tasks.base.question import Question


@dataclass(frozen=True, kw_only=True)
class Choice(Question):
    """A multiple-choice question.

    options: the texts by letter. letter: the right one. read: the set's own reading of an answer, given the options;
        None if it names none of them.
    """

    options: Mapping[str, str]
    letter: str
    read: Callable[[str, Mapping[str, str]], str | None]

    def score(self, answer: str) -> float | None:
        """Return 1 for the right option, 0 for another, None if the answer cannot be read."""
        given = self.read(answer.strip(), self.options)
        return None if given is None else float(given == self.letter)


def lettered(options: Sequence[str]) -> dict[str, str]:
    return dict(zip(ascii_uppercase, options, strict=False))


def letter_at(options: Mapping[str, str], place: int, where: str) -> str:
    """Return the letter of the option at a place, counted from 0. DataError, naming `where`, if there is none."""
    if not 0 <= place < len(options):
        raise DataError(f"{where}: the answer is option {place} of {len(options)}, counted from 0; correct the file")
    return list(options)[place]


def checked_letter(options: Mapping[str, str], letter: str, where: str, instead: str = "correct the file") -> str:
    """Return the letter. DataError, naming `where`, if no option has it."""
    if letter not in options:
        raise DataError(f"{where}: answer {letter!r} is not one of {', '.join(options) or 'no options'}; {instead}")
    return letter


def format_options(options: Mapping[str, str]) -> str:
    """Return the options, one per line, as `A. text`, which is how LLaVA-1.5 was trained."""
    return "\n".join(f"{letter}. {text}" for letter, text in options.items())


def infer_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the option in an answer by VLMEvalKit's rules, None if they would ask a chat model.

    It is the only letter that is a word of its own, ignoring punctuation, among the last five words; or else the only
    option whose text is in the answer, ignoring case, if the answer is at most twice as long as all options.
    """
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", answer).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - 4:
        return named[0]
    is_long = len(answer) > 2 * sum(map(len, options.values()))
    within = [letter for letter, text in options.items() if text.lower() in answer.lower() and not is_long]
    return within[0] if len(within) == 1 else None
