"""The side of `agreement.py` that runs in the old environment: VisionZip's own package on one set of weights.

published.py make FOLDER               saves a CLIP tower with random weights, as CLIP-L/336 but narrow
published.py keep FOLDER 53+10 ...     what the package keeps of FOLDER/pixels.pt, for patches + contextual tokens
"""

# pyright: reportMissingImports=false
# The packages are those of the old environment.
import json
import sys
from pathlib import Path

import torch
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

SIDE, PATCH, LAYERS, WIDTH, HEADS = 336, 14, 24, 64, 4  # the package counts on 24 layers


def make(folder: Path) -> None:
    """A tower whose attention is far from even: default weights attend to everything alike."""
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


def keep(folder: Path, budgets: list[str]) -> None:
    from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
    from visionzip import visionzip

    pixels, results = torch.load(folder / "pixels.pt"), {}
    for budget in budgets:
        n_patches, contextual = map(int, budget.split("+"))
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
        visionzip(model, dominant=n_patches + 1, contextual=contextual)  # it counts the CLS token
        features, indices = model.get_vision_tower()(pixels)
        results[budget] = {
            "dominant": [sorted(row) for row in (indices[:, 1:] - 1).tolist()],  # without CLS
            "contextual": features[:, n_patches + 1 :].tolist(),
        }
    (folder / "published.json").write_text(json.dumps(results))


if __name__ == "__main__":
    what, folder, *budgets = sys.argv[1:]
    if what == "make":
        make(Path(folder))
    else:
        keep(Path(folder), budgets)
