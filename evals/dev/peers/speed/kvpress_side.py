"""The prefills of `run.py` with kvpress, which cuts the cache after each layer: this saves memory, but no time before
the first token. It keeps the share of the sequence that is left when 64 of 576 visual tokens are kept.

kvpress_side.py FOLDER DTYPE
"""

# pyright: reportMissingImports=false
# The package is installed only in an environment with an older transformers.
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kvpress import KnormPress, SnapKVPress
from serve import Answer, Prefill, serve
from shape import AFTER, BEFORE, IMAGE, KEEP, N_VISUAL, random_pixels, weights
from transformers import LlavaConfig, LlavaForConditionalGeneration

#: Prefixes of weight names in the file -> in this version of transformers.
NAMES = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.language_model.",
    "multi_modal_projector.": "model.multi_modal_projector.",
    "vision_tower.": "model.vision_tower.vision_model.",
}
N_TEXT = len(BEFORE) + len(AFTER)
RATIO = 1 - (N_TEXT + KEEP) / (N_TEXT + N_VISUAL)


@contextmanager
def pressed(model: Any, press: Any, batch: int) -> Iterator[Callable[[], Answer]]:
    ids = torch.tensor([[*BEFORE, *[IMAGE] * N_VISUAL, *AFTER]] * batch)
    pixels = random_pixels(model.dtype, batch)

    def called() -> Answer:
        output = model(input_ids=ids, pixel_values=pixels, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1], output.past_key_values

    with press(model) if press else nullcontext():
        yield called


def load(folder: Path, dtype: str) -> Callable[[int], dict[str, Prefill]]:
    model = LlavaForConditionalGeneration(LlavaConfig.from_pretrained(folder))
    model.load_state_dict(weights(folder, NAMES), assign=True)
    model = model.eval().to(getattr(torch, dtype))
    presses = {"unpruned": None, "Knorm": KnormPress(RATIO), "SnapKV": SnapKVPress(RATIO)}
    return lambda batch: {name: partial(pressed, model, press, batch) for name, press in presses.items()}


if __name__ == "__main__":
    folder, dtype = sys.argv[1:]
    serve(partial(load, Path(folder), dtype), ["kvpress"])
