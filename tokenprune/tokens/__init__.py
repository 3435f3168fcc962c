"""The tensors that a strategy reads: visual tokens, their layout, and attention.

visual          the visual tokens of an image before the language model, and what strategies may declare in `needs`
stages          ... inside it, with the attention of a decoder layer, and between denoising steps
layout          their grids, tiles and newline tokens, and how patches become visual tokens
frames          the frames of a video
cells           cells of the grid, and the best tokens in each
attention       attention of one layer of the vision tower
tower           patches before the vision tower and between its layers
shrunk          smaller versions of images
"""

from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.frames import Frames
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.shrunk import Shrunk
from tokenprune.tokens.stages import FirstLayerInputs, StageTokens, StepTokens, TextAttention
from tokenprune.tokens.tower import KeptInTower, PatchTokens, TowerTokens
from tokenprune.tokens.visual import STATISTICS, VisualTokens

__all__ = [
    "STATISTICS",
    "FirstLayerInputs",
    "Frames",
    "KeptInTower",
    "Layout",
    "PatchTokens",
    "Shrunk",
    "StageTokens",
    "StepTokens",
    "TextAttention",
    "TowerTokens",
    "VisionAttention",
    "VisualTokens",
]
