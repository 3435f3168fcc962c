"""What stands in the new columns of a call, and what of it can be said without asking a GPU again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tokenprune.sequence.packing import true_indices


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """Which of the new columns are visual tokens, by modality, and which are `real`, no padding.

    host: the same on the CPU, where counting costs nothing: whatever is counted is counted there, so that a GPU is
        asked for it once in a forward. begins: on the CPU too, at which columns a picture begins, of modalities whose
        function is given tiles.
    """

    visual: Mapping[str, Bool[Tensor, "batch new"]]
    real: Bool[Tensor, "batch new"]
    begins: Mapping[str, Bool[Tensor, "batch new"] | None]
    host: Mapping[str, Bool[Tensor, "batch new"]]
    host_real: Bool[Tensor, "batch new"]

    @classmethod
    def of(
        cls,
        visual: Mapping[str, Bool[Tensor, "batch new"]],
        begins: Mapping[str, Bool[Tensor, "batch new"] | None],
        real: Bool[Tensor, "batch new"],
    ) -> PromptTokens:
        told = [begin for begin in begins.values() if begin is not None]
        masks = iter(torch.stack([real, *visual.values(), *told]).cpu())
        host_real, host = next(masks), {name: next(masks) for name in visual}
        found = {name: None if begin is None else next(masks) for name, begin in begins.items()}
        return cls(visual, real, found, host, host_real)

    @property
    def n_real(self) -> list[int]:
        """How many columns of each row are no padding."""
        return self.host_real.sum(1).tolist()

    @property
    def pads_visual(self) -> bool:
        """Whether any visual token is masked as padding is."""
        return any(bool((visual & ~self.host_real).any()) for visual in self.host.values())

    @property
    def right_padded(self) -> bool:
        """Whether padding is on the right only. It makes no difference to a single row."""
        real = self.host_real
        return len(real) > 1 and bool(real[:, 0].all() & ~real[:, -1].all())

    def places(self, modality: str) -> tuple[Int[Tensor, " tokens"], Int[Tensor, " tokens"], Int[Tensor, " tokens"]]:
        """Row and column of every visual token of a modality in reading order, both on the CPU; and the column where
        the model is."""
        rows, columns = self.host[modality].nonzero(as_tuple=True)
        visual = self.visual[modality]
        return rows, columns, true_indices(visual.flatten(), len(rows)) % visual.shape[1]

    def text_after(self, row: int, column: int) -> Int[Tensor, " text"]:
        """The columns of a row behind a column that are no visual tokens; its last column if there are none."""
        n = int((self.host_real[row] & ~torch.stack([*self.host.values()])[:, row].any(0))[column + 1 :].sum())
        if n == 0:
            return true_indices(self.real[row], self.n_real[row])[-1:]
        text = self.real[row] & ~torch.stack([*self.visual.values()])[:, row].any(0)
        return column + 1 + true_indices(text[column + 1 :], n)
