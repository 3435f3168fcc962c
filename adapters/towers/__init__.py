"""Vision towers: where their layers and attention are. `register_tower` adds one.

tower          how to read one kind of tower, and finds the `Tower` for a vision encoder
builtin        the towers of LLaVA, InternVL, Idefics, DeepSeek-VL and Ovis
qwen           the towers of Qwen-VL
siglip_packed  SigLIP's layers, with the patches of all images in one sequence
sam            towers like Segment Anything's
timm           timm models in transformers' wrapper
resampler      resamplers, whose queries become the visual tokens
attention      reads attention in one row of patches, and recomputes it with a bias; rotary embeddings
row            towers before which strategies can drop patches
layers         towers between whose layers strategies can drop patches
"""

from tokenprune.adapters.towers import builtin as builtin  # importing it registers the towers
from tokenprune.adapters.towers.tower import TOWERS, Tower, register_tower, tower_of

__all__ = ["TOWERS", "Tower", "register_tower", "tower_of"]
