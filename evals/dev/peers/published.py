"""The part of `agreement.py` that runs in the old environment: the methods' own packages on the same weights.

published.py make FOLDER                saves a narrow CLIP-L/336 with random weights
published.py visionzip FOLDER 53+10 ... what VisionZip keeps of FOLDER/pixels.pt, for patches + contextual tokens
published.py flowcut FOLDER 64 ...      what FlowCut keeps of FOLDER/pixels.pt, image by image

Each package patches transformers' classes permanently, so each has its own process.
"""

# pyright: reportMissingImports=false
# The packages are installed only in the old environment.
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

SIDE, PATCH, LAYERS, WIDTH, HEADS = 336, 14, 24, 64, 4  # the package assumes 24 layers


def make(folder: Path) -> None:
    """Write a tower whose attention is far from uniform, unlike that of default weights."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=SIDE,
        patch_size=PATCH,
    )
    tower = CLIPVisionModel(config)
    for name, weights in tower.named_parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=(1.5 if "q_proj" in name or "k_proj" in name else 0.7) / WIDTH**0.5)
    tower.save_pretrained(folder / "tower", safe_serialization=True)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder / "tower")


def model_of(folder: Path) -> Any:
    """Return the packages' kind of LLaVA with the tower in `folder`."""
    from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM

    model = LlavaLlamaForCausalLM(
        LlavaConfig(
            vocab_size=64,
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=HEADS,
            mm_vision_tower=str(folder / "tower"),
            mm_hidden_size=WIDTH,
            mm_vision_select_layer=-2,
            mm_projector_type="mlp2x_gelu",
        )
    )
    model.get_vision_tower().load_model()
    return model


def keep_visionzip(folder: Path, budgets: list[str]) -> None:
    from visionzip import visionzip

    pixels, results = torch.load(folder / "pixels.pt", weights_only=True), {}
    for budget in budgets:
        n_patches, contextual = map(int, budget.split("+"))
        model = model_of(folder)
        visionzip(model, dominant=n_patches + 1, contextual=contextual)  # it counts the CLS token
        features, indices = model.get_vision_tower()(pixels)
        results[budget] = {
            "dominant": [sorted(row) for row in (indices[:, 1:] - 1).tolist()],  # without CLS
            "contextual": features[:, n_patches + 1 :].tolist(),
        }
    (folder / "visionzip.json").write_text(json.dumps(results))


def keep_flowcut(folder: Path, budgets: list[str]) -> None:
    from flowcut.main import flowcut

    pixels, results = torch.load(folder / "pixels.pt", weights_only=True), {}
    for budget in budgets:
        model = model_of(folder)
        flowcut(model, target_num=int(budget))
        images = [model.get_vision_tower()(image) for image in pixels.split(1)]
        results[budget] = {
            "kept": [indices[0].tolist() for _, indices in images],
            "features": [features[0].tolist() for features, _ in images],
        }
    (folder / "flowcut.json").write_text(json.dumps(results))


if __name__ == "__main__":
    what, folder, *budgets = sys.argv[1:]
    if what == "make":
        make(Path(folder))
    elif what == "visionzip":
        keep_visionzip(Path(folder), budgets)
    else:
        keep_flowcut(Path(folder), budgets)
