"""The base classes of strategies: tensors in, Selection out. The strategies themselves are in `tokenprune.strategies`.

A strategy derives from the class of each place where it prunes; the engine installs only what these classes need.

base         before the language model, which every strategy does
ranked       ... by ranking tokens by a score, up to a fixed or an adaptive budget
attention    ... by the attention of the vision tower
comparing    ... and by comparing features
merging      ... by merging dropped tokens into kept ones
video        ... by comparing the frames of a video
tower        before the vision tower, and between its layers
all_enter    lets every visual token enter the language model
staged       inside the language model, in stages
text_guided  ... by the text's attention
schedule     stages that average to a given keep ratio
skipping     skips some of the decoder layers
denoising    between the steps of models that denoise
record       what a built-in strategy says about itself
calls        calls the methods of strategies and checks what they return
"""

from tokenprune.strategy.all_enter import AllEnterStrategy
from tokenprune.strategy.attention import AttentionStrategy
from tokenprune.strategy.base import Strategy
from tokenprune.strategy.comparing import ComparingStrategy
from tokenprune.strategy.denoising import DenoisingStage, DenoisingStrategy, ReusingStrategy
from tokenprune.strategy.merging import MergingStrategy
from tokenprune.strategy.ranked import AdaptiveStrategy, RankedStrategy, ScoreStrategy
from tokenprune.strategy.record import Record
from tokenprune.strategy.skipping import SkippingStrategy
from tokenprune.strategy.staged import Stage, StagedStrategy
from tokenprune.strategy.text_guided import OneStage, TextGuided, TextScoreStrategy
from tokenprune.strategy.tower import PatchStrategy, TowerStrategy
from tokenprune.strategy.video import FrameScoreStrategy, VideoStrategy

__all__ = [
    "AdaptiveStrategy",
    "AllEnterStrategy",
    "AttentionStrategy",
    "ComparingStrategy",
    "DenoisingStage",
    "DenoisingStrategy",
    "FrameScoreStrategy",
    "MergingStrategy",
    "OneStage",
    "PatchStrategy",
    "RankedStrategy",
    "Record",
    "ReusingStrategy",
    "ScoreStrategy",
    "SkippingStrategy",
    "Stage",
    "StagedStrategy",
    "Strategy",
    "TextGuided",
    "TextScoreStrategy",
    "TowerStrategy",
    "VideoStrategy",
]
