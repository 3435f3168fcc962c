"""Reports on the last pruned forward."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int, Real
from torch import Tensor

from tokenprune.errors import SettingError
from tokenprune.selection import Merge, StageReport, StepReport
from tokenprune.sequence.masks import Contract
from tokenprune.tokens.layout import Grid3, Layout
from tokenprune.tokens.shrunk import Shrunk


@dataclass(frozen=True, eq=False)
class LateStepReport:
    """The effect of late-step pruning on one image, from denoising step `step` of the current canvas on.

    kept: sorted indices within the image's visual tokens.
    scores: importance score of every visual token, NaN for tokens dropped earlier; None if the strategy gives none.
    """

    step: int
    kept: Int[Tensor, " kept"]
    scores: Float[Tensor, " visual"] | None = None


@dataclass(frozen=True)
class Denoising:
    """What the denoising steps since the last prompt with an image have read and computed.

    steps: the number of steps, of all canvases or actions.
    computed: the steps that computed every layer; the others reused outputs of an earlier step.
    kv_bytes_read: bytes of cached keys and values that the steps have read.
    kv_bytes_unpruned: what they would have read from the unpruned cache.
    """

    steps: int = 0
    computed: int = 0
    kv_bytes_read: int = 0
    kv_bytes_unpruned: int = 0

    def after_step(self, n_read: int, n_unpruned: int, computed: bool = True) -> Denoising:
        """Add a step that read `n_read` bytes, and would have read `n_unpruned` from the unpruned cache."""
        return Denoising(
            self.steps + 1,
            self.computed + computed,
            self.kv_bytes_read + n_read,
            self.kv_bytes_unpruned + n_unpruned,
        )

    def __repr__(self) -> str:
        reused = f", {self.steps - self.computed} of them from earlier outputs," if self.computed < self.steps else ""
        read, unpruned = (f"{n / 2**20:.3g} MiB" for n in (self.kv_bytes_read, self.kv_bytes_unpruned))
        return f"{self.steps} denoising steps{reused} read {read} of keys and values, unpruned {unpruned}"


#: What late-step pruning saves, and what it does not.
LATE_STEPS = (
    "late steps read fewer keys and values, and nothing else is saved: this model computes visual tokens once, so "
    "speed-ups of models that compute them in every step do not carry over"
)


@dataclass(frozen=True, eq=False, repr=False)
class ImageReport:
    """The report on one image of the batch.

    row: the sample of the batch that it belongs to. Beam search and num_return_sequences repeat samples, so the images
        of a repeated sample appear once per repetition.
    modality: "image" or "video".
    layout: the layout of its visual tokens, from which `grid`, `grids` and `n_visual` follow.
    kept: sorted indices within the image's visual tokens.
    scores: importance score of every visual token; None if the strategy gives none.
    position_ids: the position IDs of the kept tokens.
    merged: the tokens merged into kept ones; None if there are none.
    stages: the effect of each stage inside the language model, by layer.
    in_tower: the effect of pruning in or before the vision tower, by layer.
    steps: for strategies in sequence, what each kept before the language model.
    late_steps: the effect of each stage between denoising steps on the last canvas, by step.
    shrunk: the smaller version that was encoded; None if the image was encoded as it was passed.
    """

    row: int
    modality: str
    layout: Layout
    kept: Int[Tensor, " kept"]
    scores: Float[Tensor, " visual"] | None
    position_ids: Real[Tensor, "*components kept"]
    merged: Merge | None = None
    stages: tuple[StageReport, ...] = ()
    in_tower: tuple[StageReport, ...] = ()
    steps: tuple[StepReport, ...] = ()
    late_steps: tuple[LateStepReport, ...] = ()
    shrunk: Shrunk | None = None

    @property
    def grid(self) -> Grid3:
        """(t, h, w) of its visual tokens. Raises PruningError if they form several rasters: read `grids` instead."""
        return self.layout.grid

    @property
    def grids(self) -> tuple[Grid3, ...]:
        """(t, h, w) of every raster of its visual tokens, in order."""
        return self.layout.grids

    @property
    def n_visual(self) -> int:
        return self.layout.n_visual

    @property
    def n_kept(self) -> int:
        """The number of visual tokens that enter the language model."""
        return len(self.kept)

    @property
    def n_left(self) -> int:
        """The number of visual tokens that the last decoder layer or the last denoising step sees."""
        stages = self.late_steps or self.stages
        return len(stages[-1].kept) if stages else self.n_kept

    def kept_at(self, layer: int) -> Int[Tensor, " left"]:
        """The visual tokens that decoder layer `layer` sees, counted from 0. Raises SettingError for a negative number:
        a report does not know how many layers there are."""
        if layer < 0:
            raise SettingError(
                f"kept_at(layer={layer}): decoder layers count from 0. Write kept_at(n_layers - 1) for what the last "
                f"one sees."
            )
        return next((stage.kept for stage in reversed(self.stages) if stage.layer <= layer), self.kept)

    def __repr__(self) -> str:
        kept = f"kept {self.n_kept} of {self.n_visual} visual tokens"
        kept += f" ({', '.join(f'{step.strategy} {len(step.kept)}' for step in self.steps)})" if self.steps else ""
        kept += "".join(f", {len(stage.kept)} from layer {stage.layer}" for stage in self.stages)
        kept += "".join(f", {len(stage.kept)} from denoising step {stage.step}" for stage in self.late_steps)
        if self.shrunk is not None:
            height, width = self.shrunk.size
            kept += f": shrunk to {height} x {width} pixels, {format_grids(self.shrunk.layout.grids)} grid"
        return f"ImageReport(row={self.row}, {self.modality}, {format_grids(self.grids)} grid, {kept})"


def format_grids(grids: tuple[Grid3, ...]) -> str:
    """Format grids as text, writing a repeated sequence such as the frames of a video only once."""
    period = next(n for n in range(1, len(grids) + 1) if grids == grids[:n] * (len(grids) // n))
    once = " + ".join("x".join(map(str, grid if grid[0] > 1 else grid[1:])) for grid in grids[:period])
    return once if period == len(grids) else f"{len(grids) // period} x ({once})"


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """A report on the last forward that contained visual tokens.

    images: the images and videos of the forward, in reading order.
    skipped: the decoder layers that were skipped.
    contract: what this model's answers equal: those of the unpruned model with the dropped tokens masked out of
        attention ("masking"; "masking except ties" with an indexer that may give tokens equal scores), or, where layers
        have a state, those of a language model that has "never seen" them ("never seen, compact": at position IDs
        without gaps).
    denoising: what the denoising steps have read and computed; None for models without any.
    """

    images: list[ImageReport]
    skipped: tuple[int, ...] = ()
    contract: Contract = "masking"
    denoising: Denoising | None = None

    @property
    def n_visual(self) -> int:
        return sum(image.n_visual for image in self.images)

    @property
    def n_kept(self) -> int:
        return sum(image.n_kept for image in self.images)

    @property
    def n_left(self) -> int:
        return sum(image.n_left for image in self.images)

    def __repr__(self) -> str:
        late = any(image.late_steps for image in self.images)
        kept = f"kept {self.n_kept} of {self.n_visual} visual tokens"
        if self.n_left == self.n_kept:
            kept += f", keep ratio {self.n_kept / self.n_visual:.1%}"
        else:
            end = "the last denoising step" if late else "its last layer"
            kept += f" before the language model, {self.n_left} in {end}"
        skipped = f", decoder layers {list(self.skipped)} skipped" if self.skipped else ""
        contract = "" if self.contract == "masking" else f", dropped tokens: {self.contract}"
        lines = [f"Report({kept}{skipped}{contract})", *(f"  {image!r}" for image in self.images)]
        if self.denoising is not None:
            lines.append(f"  {self.denoising!r}" + (f" ({LATE_STEPS})" if late else ""))
        return "\n".join(lines)
