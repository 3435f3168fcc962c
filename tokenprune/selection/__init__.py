"""The outcome for one image: which visual tokens are kept, what is merged into them, and the budget.

selection  the kept tokens, and how many may be kept
merge      what is merged into them
steps      what is kept after each of several steps
precision  selects with torch.autocast off
"""

from tokenprune.selection.merge import Merge
from tokenprune.selection.selection import Selection, budget, n_reaching, split, tile_share
from tokenprune.selection.steps import StageReport, StepReport, scores_of_all

__all__ = [
    "Merge",
    "Selection",
    "StageReport",
    "StepReport",
    "budget",
    "n_reaching",
    "scores_of_all",
    "split",
    "tile_share",
]
