"""The prefills of `run.py` in the old environment, with LLaVA's own package: one method per process, because the
methods' packages patch classes permanently.

llava_side.py FOLDER DTYPE unpruned|VisionZip|FlowCut
"""

# pyright: reportMissingImports=false
# The packages are installed only in the old environment.
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from serve import Answer, Prefill, serve
from shape import AFTER, BEFORE, CONTEXTUAL, KEEP, TEXT, VISION, random_pixels, weights
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

#: Prefixes of weight names in the file -> in LLaVA's package.
NAMES = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.",
    "multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "multi_modal_projector.linear_2.": "model.mm_projector.2.",
    "vision_tower.": "model.vision_tower.vision_tower.vision_model.",
}
PACKAGES = {"unpruned": [], "VisionZip": [], "FlowCut": ["flowcut"]}  # VisionZip is not installed, only unpacked


def model_of(folder: Path) -> Any:
    from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM

    tower = folder / "tower"
    if not tower.exists():
        CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(tower, safe_serialization=True)
        CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=336).save_pretrained(tower)
    model = LlavaLlamaForCausalLM(
        LlavaConfig(
            **TEXT,
            mm_vision_tower=str(tower),
            mm_hidden_size=VISION["hidden_size"],
            mm_vision_select_layer=-2,
            mm_projector_type="mlp2x_gelu",
        )
    )
    model.get_vision_tower().load_model()
    model.load_state_dict(weights(folder, NAMES), assign=True)
    return model.eval()


def patch(model: Any, method: str) -> None:
    if method == "VisionZip":
        from visionzip import visionzip

        visionzip(model, dominant=KEEP - CONTEXTUAL, contextual=CONTEXTUAL)  # `dominant` includes the CLS token
    elif method == "FlowCut":
        from flowcut.main import flowcut

        flowcut(model, target_num=KEEP)


def load(folder: Path, dtype: str, method: str) -> Callable[[int], dict[str, Prefill]]:
    model = model_of(folder)
    patch(model, method)
    model = model.to(getattr(torch, dtype))

    def prefills(batch: int) -> dict[str, Prefill]:
        pixels = random_pixels(model.dtype, batch)
        ids = torch.tensor([[*BEFORE, -200, *AFTER]] * batch)  # LLaVA's token ID for an image

        def called() -> Answer:
            output = model(input_ids=ids, images=pixels, use_cache=True)
            return output.logits[:, -1], output.past_key_values

        return {method: lambda: nullcontext(called)}

    return prefills


if __name__ == "__main__":
    folder, dtype, method = sys.argv[1:]
    serve(partial(load, Path(folder), dtype, method), ["llava-torch", *PACKAGES[method]])
