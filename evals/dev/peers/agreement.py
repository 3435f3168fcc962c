"""Compare our VisionZip and FlowCut with the published packages on the same weights, images and budgets.

    python evals/dev/peers/agreement.py OLD_PYTHON

OLD_PYTHON is the interpreter of an environment with the old packages: see evals/results/peers.md. For VisionZip, this
compares the dominant tokens, and the features of the contextual tokens where the package merges them, before the
projector. For FlowCut, it compares the tokens left by the vision tower, and their features before the projector.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from transformers import CLIPImageProcessor, CLIPVisionModel, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import tokenprune
from tokenprune.evals.models.bundled import SCENES
from tokenprune.evals.reading.images import open_image

BUDGETS = ("15+3", "53+10", "107+20", "161+30", "287+57")
FLOWCUT_BUDGETS = ("32", "64", "128", "192", "288")
IMAGE = 60
PUBLISHED = Path(__file__).parent / "published.py"


def example_images(count: int) -> list[Path]:
    """Return the files of the first bundled scenes."""
    return sorted((SCENES / "images").iterdir())[:count]


def model_of(tower: CLIPVisionModel) -> Any:
    """Return a LLaVA with this tower; the rest does not matter here."""
    text = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    config = LlavaConfig(vision_config=tower.config, text_config=text, image_token_index=IMAGE, vision_feature_layer=-2)
    model = LlavaForConditionalGeneration(config).eval()
    model.model.vision_tower.load_state_dict(tower.state_dict())
    return model


def prompts(pixels: torch.Tensor, n_visual: int) -> torch.Tensor:
    """Return the input IDs of one prompt per image."""
    return torch.tensor([[1, *[IMAGE] * n_visual, 2]] * len(pixels))


@torch.no_grad()
def flowcut_compared(model: Any, pixels: torch.Tensor, budget: str, published: dict[str, Any]) -> list[str]:
    """Return one line of FlowCut's table. Our model gets all images at once."""
    seen: list[torch.Tensor] = []
    hook = model.model.multi_modal_projector.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with tokenprune.patch(model, tokenprune.FlowCut(keep=int(budget))) as handle:
        model(input_ids=prompts(pixels, (model.config.vision_config.image_size // 14) ** 2), pixel_values=pixels)
    hook.remove()
    same, alike, largest = 0, 0, 0.0
    for image, own, theirs, features in zip(
        handle.report.images, seen[0], published["kept"], published["features"], strict=True
    ):
        same += len(set(theirs) & set(image.kept.tolist()))
        if theirs == image.kept.tolist():
            alike += 1
            largest = max(largest, float((own[image.kept] - torch.tensor(features)).abs().max()))
    n = int(budget) * len(pixels)
    drops = sorted({tuple(len(stage.kept) for stage in image.in_tower) for image in handle.report.images})
    print(f"FlowCut {budget}: {len(drops)} different series of numbers left in the tower, such as {drops[0]}")
    return [budget, str(n), f"{100 * same / n:.2f}", f"{alike} of {len(pixels)}", f"{largest:.1e}"]


def gaps(keys: torch.Tensor, contextual: torch.Tensor, merged: torch.Tensor) -> torch.Tensor:
    """Return, for each merged token, by how much its key is closer to the nearest contextual token's than to the second
    nearest's."""
    unit = torch.nn.functional.normalize(keys, dim=-1)
    first, second = (unit[merged] @ unit[contextual].T).topk(2).values.T
    return (first - second).sort().values


@torch.no_grad()
def visionzip_compared(model: Any, pixels: torch.Tensor, budget: str, published: dict[str, Any]) -> list[str]:
    """Return one line of VisionZip's table."""
    n_patches, contextual = map(int, budget.split("+"))
    n_kept = n_patches + contextual
    features = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    with tokenprune.patch(model, tokenprune.VisionZip(keep=n_kept, contextual=contextual / n_kept)) as handle:
        model(input_ids=prompts(pixels, features.shape[1]), pixel_values=pixels)
    with tokenprune.probe(model, needs={"vision_attention"}) as seen:
        model(input_ids=prompts(pixels, features.shape[1]), pixel_values=pixels)
        attention = [image.tokens.vision_attention for image in seen.images]
    same, differences = 0, []
    for i, (image, own, read, theirs, merged) in enumerate(
        zip(handle.report.images, features, attention, published["dominant"], published["contextual"], strict=True)
    ):
        same += len(set(theirs) & set(image.kept.tolist()))
        is_dominant = torch.isin(image.kept, torch.tensor(theirs))
        assert image.merged is not None
        values = image.merged.apply(own, image.kept)[~is_dominant]
        if len(values) != contextual:
            continue
        of_each = (values - torch.tensor(merged)).abs().amax(-1)
        differences.append(float(of_each.max()))
        if n_others := int((of_each > 1e-4).sum()):  # two for each token that is merged into a different one
            assert read is not None
            rest = torch.ones(len(own), dtype=torch.bool)
            rest[image.kept] = False
            ties = gaps(read.patch_keys().mean(1), image.kept[~is_dominant], rest.nonzero()[:, 0])
            tied = ties[: (n_others + 1) // 2].tolist()
            print(f"VisionZip {budget}, image {i}: {n_others} contextual tokens differ; cosines that differ by {tied}")
    n = n_patches * len(pixels)
    largest = max(differences, default=float("nan"))
    return [budget, str(n), f"{100 * same / n:.2f}", f"{len(differences)} of {len(pixels)}", f"{largest:.1e}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old_python", help="the interpreter with the published packages")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--budgets", nargs="*", default=BUDGETS, metavar="DOMINANT+CONTEXTUAL", help="VisionZip's")
    parser.add_argument("--flowcut-budgets", nargs="*", default=FLOWCUT_BUDGETS, metavar="TOKENS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([options.old_python, PUBLISHED, "make", folder], check=True)
        tower = CLIPVisionModel.from_pretrained(folder / "tower")
        processor = CLIPImageProcessor.from_pretrained(folder / "tower")
        images = [open_image(path) for path in example_images(options.images)]
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        torch.save(pixels, folder / "pixels.pt")
        for name, budgets in (("visionzip", options.budgets), ("flowcut", options.flowcut_budgets)):
            subprocess.run([options.old_python, PUBLISHED, name, folder, *budgets], check=True)
        visionzip, flowcut = (json.loads((folder / f"{name}.json").read_text()) for name in ("visionzip", "flowcut"))
    model = model_of(tower)
    table = Table("dominant + contextual", "n", "same dominant, %", "images with all the same", "largest difference")
    for budget in options.budgets:
        table.add_row(*visionzip_compared(model, pixels, budget, visionzip[budget]))
    Console().print("VisionZip", table)
    table = Table("tokens", "n", "same kept, %", "images with all the same", "largest difference of those")
    for budget in options.flowcut_budgets:
        table.add_row(*flowcut_compared(model, pixels, budget, flowcut[budget]))
    Console().print("FlowCut", table)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
