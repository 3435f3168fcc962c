"""Vision towers: where their layers and attention are. `register_tower` adds one.

tower          how to read one kind of tower
registry       which `Tower` a model's tower gets
builtin        the towers of LLaVA, InternVL, Idefics, DeepSeek-VL and Ovis
qwen           Qwen-VL's
siglip_packed  SigLIP's layers, with the patches of all images in one sequence
sam            towers like Segment Anything's
timm           timm models in transformers' wrapper
resampler      resamplers, whose queries become the visual tokens
attention      reads attention in one row of patches, and recomputes it with a bias
row            towers that strategies can drop patches before
layers         towers that strategies can drop patches in, from some layer on
rotary         rotary position embeddings
"""

from tokenprune.adapters.towers import builtin as builtin  # importing it registers the towers
from tokenprune.adapters.towers.registry import TOWERS, register_tower, tower_of
from tokenprune.adapters.towers.tower import Tower

__all__ = ["TOWERS", "Tower", "register_tower", "tower_of"]
