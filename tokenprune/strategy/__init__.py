"""The base classes of strategies: tensors in, Selection out. The strategies themselves are in `tokenprune.strategies`.

A strategy derives from the class of each place where it prunes; the engine installs only what these classes need.

base       before the language model, which every strategy does; calls of its methods, and checks of what they return
scoring    ... by ranking tokens by a score, up to a fixed or an adaptive budget; by the attention of the vision tower
kinds      ... by merging dropped tokens, or comparing the frames of a video; by shrinking images, before the vision
           tower, and between its layers
staged     inside the language model, in stages, and between the steps of models that denoise
stage      these stages, and those that a setting or a given average gives
skipping   which decoder layers are skipped
record     what a built-in strategy says about itself
former     former names of base classes
"""

from tokenprune.strategy.base import Strategy
from tokenprune.strategy.former import AdaptiveStrategy as AdaptiveStrategy
from tokenprune.strategy.former import DenoisingStrategy as DenoisingStrategy
from tokenprune.strategy.former import RankedStrategy as RankedStrategy
from tokenprune.strategy.former import TextScoreStrategy as TextScoreStrategy
from tokenprune.strategy.kinds import MergingStrategy, PatchStrategy, ResizeStrategy, TowerStrategy, VideoStrategy
from tokenprune.strategy.record import Record
from tokenprune.strategy.scoring import AttentionStrategy, ScoreStrategy
from tokenprune.strategy.stage import DenoisingStage, Stage
from tokenprune.strategy.staged import StagedStrategy

__all__ = [
    "AttentionStrategy",
    "DenoisingStage",
    "MergingStrategy",
    "PatchStrategy",
    "Record",
    "ResizeStrategy",
    "ScoreStrategy",
    "Stage",
    "StagedStrategy",
    "Strategy",
    "TowerStrategy",
    "VideoStrategy",
]
