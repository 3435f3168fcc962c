"""The outcome for one image: which visual tokens are kept, what is merged into them, and how many there may be.

selection  the kept tokens
merge      what is merged into them
steps      what each of several steps has left
budgets    how many tokens there may be
"""

from tokenprune.selection.budgets import budget, n_reaching, split, tile_share
from tokenprune.selection.merge import Merge
from tokenprune.selection.selection import Selection
from tokenprune.selection.steps import StageReport, StepReport

__all__ = ["Merge", "Selection", "StageReport", "StepReport", "budget", "n_reaching", "split", "tile_share"]
