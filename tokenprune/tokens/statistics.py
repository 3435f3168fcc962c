"""The statistics that a strategy can declare in `needs`, and the check that a model offers them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, TypeVar

from tokenprune.errors import PruningError, SettingError, UnsupportedError, unknown

Declared = TypeVar("Declared")

#: Each text says what to do if a model does not offer the statistic.
STATISTICS = {
    "vision_attention": "attention of one vision-encoder layer; without it, use a strategy that scores features, such "
    "as DivPrune",
    "early_attention": "attention of an earlier vision-encoder layer; without it, use a strategy that reads one layer "
    "only, such as FoPru, or none, such as DivPrune",
    "tower_features": "the features of every visual token before the projector, so a projector that maps each token by "
    "itself, as in LLaVA; without one, compare those after it: tokens.features",
    "late_features": "the hidden states of the vision tower's last layers, and a projector that maps each token by "
    "itself, as in LLaVA; without them, compare the features after the projector: tokens.features",
    "cls": "a CLS token in the vision tower; without one, use column sums: "
    'FoPru(score="column"), BackgroundPruning(rank="column")',
    "pixels": "the image as the vision tower receives it; without it, use a strategy that scores features, such as "
    "DivPrune",
    "text_tower": "the text tower that its vision tower was trained with, such as CLIP's, which no model here "
    "includes; pass one: CDPruner(relevance=ClipRelevance(clip, tokenizer, question))",
    "text_attention": "attention of the language model's layers; without it, use a strategy that prunes before it",
    "canvas_attention": "attention of the tokens that a block diffusion model denoises; without it, use a strategy "
    "that prunes before the language model",
    "kept_in_tower": "a vision tower that may drop patches between its layers: with eager or sdpa attention and one "
    "feature layer, not among the first, that comes after a layer which attends to whole images; `tokenprune models "
    "NAME` says whether a model's tower may; without it, use a strategy that prunes after the tower, such as VisionZip",
    "kept_before_tower": "a vision tower that takes the patches of all images in one row and can skip some of them; "
    "`tokenprune models NAME` says whether a model's tower can; without it, use a strategy that prunes after the "
    "tower, such as DivPrune",
    "shrunk": "a vision tower that encodes smaller images than its own, as far as `patch` knows how to make them; "
    "`tokenprune models NAME` says whether a model's does; without it, lower the size in the processor's settings, or "
    "use a strategy that prunes after the tower, such as FoPru",
    "grid": "the rows and columns of visual tokens; without them, use a strategy that scores attention or features, "
    "such as FoPru or DivPrune",
    "frames": "videos whose frames it can compare; without them, use a strategy for images, which prunes videos too",
    "colors": "the image's own colours; without them, use a strategy that scores attention or features",
}


class Offered(Set[str]):
    """The statistics that a model offers. Whether it has one is only found out when somebody asks for that one.

    questions: for each statistic, a function whose result is true if the model has it.
    """

    def __init__(self, questions: Mapping[str, Callable[[], object]]) -> None:
        self._questions = questions

    def __contains__(self, statistic: object) -> bool:
        return statistic in self._questions and bool(self._questions[str(statistic)]())

    def __iter__(self) -> Iterator[str]:
        return filter(self.__contains__, self._questions)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __or__(self, more: Set[object]) -> Offered:
        return Offered({**self._questions, **{str(statistic): lambda: True for statistic in more}})

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> frozenset[Any]:  # what `&` and `-` make
        return frozenset(it)


def check_needs(
    owner: str,
    needs: frozenset[str],
    offers: Set[str],
    model: str,
    why: Callable[[str], str | None] = lambda need: None,
    instead: str = "",
) -> None:
    """Raise SettingError for an unknown need, and UnsupportedError for one that `model` does not offer. `why` gives the
    reason, if known, and `instead` says what to do instead."""
    for need in sorted(needs):
        if need not in STATISTICS:
            raise SettingError(f"{owner}.needs: {unknown('statistic', need, STATISTICS)}")
        if need not in offers:
            reason = why(need)
            lacks = "does not have it" if reason is None else f"does not have it: {reason}"
            raise UnsupportedError(
                f"{owner} needs {STATISTICS[need]}. {model} {lacks}; it offers: "
                f"{', '.join(sorted(offers)) or 'nothing'}. {instead}".rstrip()
            )


def declared(name: str, need: str, value: Declared | None) -> Declared:
    """Return what `tokens.name` reads. Raises PruningError without it: the strategy has not declared the `need`."""
    if value is None:
        raise PruningError(
            f'tokens.{name} is not among the strategy\'s needs. Add "{need}" to them, for instance:\n'
            f'    needs = frozenset({{"{need}"}})'
        )
    return value
