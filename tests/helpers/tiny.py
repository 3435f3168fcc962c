"""Shortcuts to the tiny LLaVA models, for tests that need only one family."""

from typing import Any

from helpers.families.base import CACHE, ENCODES_FIRST, EOS, IMAGE, PAD, PATCH, VOCAB
from helpers.families.llava import SIDE, TOWERS, Llava
from tokenprune import STRATEGIES
from tokenprune.strategy import PatchStrategy

__all__ = [
    "BEFORE_THE_LANGUAGE_MODEL",
    "CACHE",
    "ENCODES_FIRST",
    "EOS",
    "FOR_IMAGES",
    "IMAGE",
    "ON_LLAVA",
    "PAD",
    "PATCH",
    "SIDE",
    "TOWERS",
    "VOCAB",
    "prompt",
    "tiny_llava",
]


#: Strategies that do not compare the frames of a video.
FOR_IMAGES = [name for name, cls in STRATEGIES.items() if "frames" not in cls().needs]
#: The strategies that can prune a LLaVA.
ON_LLAVA = [name for name in FOR_IMAGES if not issubclass(STRATEGIES[name], PatchStrategy)]
#: Those of them that use no decoder layer, as strings: VFlowOpt without stages, for which two layers are too few.
BEFORE_THE_LANGUAGE_MODEL = [
    "vflowopt:progressive=False" if name == "vflowopt" else name
    for name in ON_LLAVA
    if "text_attention" not in STRATEGIES[name]().needs
]


def tiny_llava(tower: str = "clip", seed: int = 0, attention: str = "sdpa", **settings: Any) -> Any:
    """Return a LlavaForConditionalGeneration in float32 whose attention is far from uniform."""
    return Llava(f"llava-{tower}", **settings).build(attention, seed)


def prompt(
    images_per_row: list[int],
    texts: list[int] | None = None,
    seed: int = 1,
    padding: str = "left",
    height: int = SIDE,
    width: int = SIDE,
) -> dict[str, Any]:
    """Return the input IDs, attention mask and images of a batch. `texts`: the numbers of text tokens around images."""
    return Llava("llava-clip").prompt(images_per_row, texts, seed, padding, sizes=[(height, width)])
