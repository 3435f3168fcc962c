"""Vision towers: where their layers and attention are. `register_tower` adds one.

tower          how one kind of tower is read
registry       which one reads a model's tower
builtin        those of LLaVA, InternVL, Idefics, DeepSeek-VL and Ovis
qwen           Qwen-VL's
siglip_packed  SigLIP's layers on the patches of all images in one sequence
sam            those made like Segment Anything's
timm           timm's, in transformers' wrapper
resampler      modules after a tower whose queries become the visual tokens
attention      how attention in one row of patches is read, and recomputed with a bias
row            towers that work without some patches, which are dropped before them
layers         towers that work with fewer patches from some layer on
rotary         rotary position embeddings
"""

from tokenprune.adapters.towers import builtin as builtin  # importing it registers the towers
from tokenprune.adapters.towers.registry import TOWERS, register_tower, tower_of
from tokenprune.adapters.towers.tower import Tower

__all__ = ["TOWERS", "Tower", "register_tower", "tower_of"]
