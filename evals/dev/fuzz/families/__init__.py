"""Random tiny models of every supported family, by name.

base     common parts
plain    an image is one raster of patches
square   an image has a fixed number of visual tokens, or is packed with others in one row
tiles    square tiles, in which 2 x 2 patches become one visual token
anyres   an overview, tiles and newline tokens; pooled frames
qwen_vl  any size, and position IDs of three components
"""

from collections.abc import Callable
from random import Random

from tokenprune.evals.dev.fuzz.families.anyres import LlavaNext, LlavaNextVideo, LlavaOnevision
from tokenprune.evals.dev.fuzz.families.base import Family
from tokenprune.evals.dev.fuzz.families.plain import Llava, VideoLlava, VipLlava
from tokenprune.evals.dev.fuzz.families.qwen_vl import Qwen2_5_VL, Qwen2VL, Qwen3VL
from tokenprune.evals.dev.fuzz.families.square import Gemma3, Mistral3, PaliGemma
from tokenprune.evals.dev.fuzz.families.tiles import Idefics3, InternVL, SmolVLM

FAMILIES: dict[str, Callable[[Random], Family]] = {
    "llava": Llava,
    "vip_llava": VipLlava,
    "video_llava": VideoLlava,
    "llava_next": LlavaNext,
    "llava_next_video": LlavaNextVideo,
    "llava_onevision": LlavaOnevision,
    "qwen2_vl": Qwen2VL,
    "qwen2_5_vl": Qwen2_5_VL,
    "qwen3_vl": Qwen3VL,
    "internvl": InternVL,
    "idefics3": Idefics3,
    "smolvlm": SmolVLM,
    "gemma3": Gemma3,
    "paligemma": PaliGemma,
    "mistral3": Mistral3,
}

__all__ = ["FAMILIES", "Family"]
