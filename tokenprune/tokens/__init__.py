"""The tensors that a strategy reads: visual tokens, their layout, and attention."""

from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.frames import Frames
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.text_attention import TextAttention
from tokenprune.tokens.tower import LeftInTower, PatchTokens, TowerTokens
from tokenprune.tokens.visual import STATISTICS, Entered, StageTokens, StepTokens, VisualTokens

__all__ = [
    "STATISTICS",
    "Entered",
    "Frames",
    "Layout",
    "LeftInTower",
    "PatchTokens",
    "StageTokens",
    "StepTokens",
    "TextAttention",
    "TowerTokens",
    "VisionAttention",
    "VisualTokens",
]
