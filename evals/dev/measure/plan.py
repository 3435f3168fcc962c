"""What is measured on the bundled model: sets, resolutions, strategies, keep ratios and position IDs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from tokenprune.strategies import STRATEGIES as REGISTERED

RATIOS = 0.5, 0.25, 0.1, 0.05
BOTH, ORIGINAL = ("original", "compact"), ("original",)
PATCH = 14  # pixels
QUESTIONS = 400

#: Every strategy with the settings that its record names, unless that says why it is left out.
STRATEGIES = tuple(
    f"{name}:{settings}" if settings else name
    for name, cls in REGISTERED.items()
    if not cls.record.unmeasured
    for settings in cls.record.measured
)
#: Those that drop tokens inside the language model only: registered name -> class.
INSIDE = {name: cls.__name__ for name, cls in REGISTERED.items() if cls.all_enter}
#: One strategy for each way of choosing tokens, for the sets of one kind of question.
FEW = ("fopru:mode=rank,layer=-2", "visionzip:layer=-2", "mosaic", "scope:layer=-2", "divprune", "fastv", "par")
#: Strategies with one setting changed, each compared with the same strategy without the change.
VARIANTS = (
    "fopru:score=cls,layer=-2 visionzip:layer=-2,cells=auto visionzip:layer=-2,attention_bias=size "
    "vflowopt:attention_bias=size nuwa:layer=-2,attention_bias=size prumerge:layer=-2,attention_bias=size "
    "averagepooling:attention_bias=size backgroundpruning:layer=-2,attention_bias=size tome:schedule=decreasing "
    "scope:layer=-2,features=projected vispruner:layer=-2,features=projected prunesid:layer=-2,features=projected "
    "nuwa:layer=-2,features=projected"
)
#: Strategies to compare with those inside the language model, at keep ratios that give a KV cache of the same size.
AT_EQUAL_CACHE = ("fopru:mode=rank,layer=-2", "visionzip:layer=-2", "mosaic", "scope:layer=-2")


def is_inside(strategy: str) -> bool:
    """Return whether a strategy of the plan drops tokens inside the language model only."""
    return strategy.split(":")[0] in INSIDE


def is_label_inside(label: str) -> bool:
    """The same, for the name of a strategy in the rows."""
    return label.split()[0] in INSIDE.values()


@dataclass(frozen=True)
class Part:
    """A set at one resolution.

    grid: rows and columns of visual tokens, None for the processor's own. ratios: if empty, only the unpruned model is
    asked. questions: how many of each task, None for all. settings: whether settings files are among the strategies.
    """

    data: str
    grid: tuple[int, int] | None = None
    ratios: tuple[float, ...] = ()
    strategies: tuple[str, ...] = ()
    position_ids: tuple[str, ...] = ORIGINAL
    questions: int | None = None
    settings: bool = False
    title: str = ""

    @property
    def name(self) -> str:
        grid = "" if self.grid is None else f"{self.grid[0]}x{self.grid[1]}"
        return "_".join(filter(None, (self.data, grid, self.title)))

    def ids(self, strategy: str) -> tuple[str, ...]:
        """Return the position IDs to measure. Strategies inside the language model do not change them, so compact IDs
        would equal the original ones."""
        return ORIGINAL if is_inside(strategy) else self.position_ids

    @property
    def image_size(self) -> tuple[int, int] | None:
        return None if self.grid is None else (PATCH * self.grid[0], PATCH * self.grid[1])


#: Sets of one kind of question each.
KINDS = ("counting", "relations", "text", "small")
#: All questions, asked of the unpruned model.
UNPRUNED = (
    *(Part("scenes", grid) for grid in ((8, 8), (12, 12), None, (24, 24))),
    *(Part(kind, grid) for kind in KINDS for grid in ((8, 8), None, (24, 24))),
    *(Part("wide", grid) for grid in ((8, 12), (16, 24))),
    *(Part("tall", grid) for grid in ((12, 8), (24, 16))),
    Part("photographs"),
)
#: The tables, the most important first.
PRUNED = (
    Part("scenes", None, RATIOS, STRATEGIES, BOTH, QUESTIONS, settings=True),
    *(Part(kind, None, (0.25, 0.1), FEW, ORIGINAL, QUESTIONS) for kind in KINDS),
    Part("scenes", (24, 24), (0.25, 0.1), FEW, ORIGINAL, QUESTIONS),
    Part("wide", (16, 24), (0.25, 0.1), FEW, ORIGINAL, QUESTIONS),
)
#: Changes of one setting, on the questions of the main table.
VARIED = Part(
    "scenes", None, (0.25, 0.1), tuple(VARIANTS.split()), ORIGINAL, QUESTIONS, settings=True, title="variants"
)


def planned(ratios: Collection[float] | None = None) -> list[Part]:
    """Return all parts, or only what they ask at some keep ratios; 1 stands for the parts with only the unpruned model,
    which is also asked in every other part."""
    if ratios is None:
        return [*UNPRUNED, *PRUNED, VARIED]
    parts = (*PRUNED, VARIED)
    some = [replace(part, ratios=tuple(ratio for ratio in part.ratios if ratio in ratios)) for part in parts]
    return [*(UNPRUNED if 1.0 in ratios else ()), *(part for part in some if part.ratios)]
