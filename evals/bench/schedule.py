"""The number of visual tokens in each layer: the time of a pruned forward depends on nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from tokenprune.report import ImageReport, Report
from tokenprune.selection import StageReport


@dataclass(frozen=True)
class Schedule:
    """The visual tokens of a row that each layer sees.

    layers: how many each decoder layer sees; 0 where it is not executed.
    tower: how many visual tokens' patches each encoder layer of the vision tower sees; empty if all.
    """

    layers: tuple[int, ...]
    tower: tuple[int, ...] = ()

    @property
    def entering(self) -> int:
        return self.layers[0]

    @property
    def mean(self) -> float:
        """Over the decoder layers."""
        return sum(self.layers) / len(self.layers)

    @property
    def executed(self) -> bool:
        """Whether every decoder layer is executed."""
        return 0 not in self.layers

    def __str__(self) -> str:
        """Return `144` if all layers see the same number, `166x8+48x8` if it falls, with a pruned tower in brackets."""
        tower = f" (tower {_format_counts(self.tower)})" if self.tower else ""
        return _format_counts(self.layers) + tower

    def to_json(self) -> dict[str, list[list[int]]]:
        """Return runs of [tokens, layers], for the decoder and for the tower."""
        return {"layers": _runs(self.layers), "tower": _runs(self.tower)}

    @classmethod
    def from_json(cls, content: Mapping[str, Sequence[Sequence[int]]]) -> "Schedule":
        """Read what `to_json` returned."""
        layers, tower = (tuple(count for count, n in content[part] for _ in range(n)) for part in ("layers", "tower"))
        return cls(layers, tower)

    @classmethod
    def of(cls, report: Report, n_layers: int, n_tower_layers: int) -> "Schedule":
        """Read a forward's report with one image per row. The longest row counts, because rows are padded to it."""
        layers = [
            0 if layer in report.skipped else max(len(image.kept_at(layer)) for image in report.images)
            for layer in range(n_layers)
        ]
        tower: Sequence[int] = ()
        if any(image.in_tower for image in report.images):
            tower = [max(_left(image, layer) for image in report.images) for layer in range(n_tower_layers)]
        return cls(tuple(layers), tuple(tower))


def _left(image: ImageReport, layer: int) -> int:
    stages: Iterable[StageReport] = reversed(image.in_tower)
    return next((len(stage.kept) for stage in stages if stage.layer <= layer), image.n_visual)


def _runs(counts: Sequence[int]) -> list[list[int]]:
    return [[count, len(list(run))] for count, run in groupby(counts)]


def _format_counts(counts: Sequence[int]) -> str:
    runs = _runs(counts)
    return str(runs[0][0]) if len(runs) == 1 else "+".join(f"{count}x{n}" for count, n in runs)
