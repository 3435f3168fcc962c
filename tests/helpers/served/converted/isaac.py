"""A tiny Isaac, which transformers has no class for, and the same model as a PaddleOCR-VL with a Qwen3, without rotary
embeddings in its tower, and with Isaac's position embeddings, projector and position IDs."""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from functools import cache
from itertools import groupby
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from helpers.served.converted.colors import HALVES, read_halves
from helpers.served.converted.keye import draw_norms, norm_queries_and_keys
from helpers.served.models import CHAT, IMAGE, decoder, save, tokenizer, tower
from helpers.served.reference import CONVERTED

ISAAC_VISUAL = "<|image_pad|>"
#: Enough words that the rows and columns of an image, which count from zero, are not the largest position IDs.
ISAAC_IMAGE = f"w70 w71 w72 w73 {IMAGE}"
#: vLLM's processor has this size of a patch in its code.
PATCH, SIDE, WIDTH = 16, 8, 64
#: The fewest and the most patches of an image.
LEAST, MOST = 16, 196
#: What the PaddleOCR-VL lacks, in its folder, under the names that Isaac has.
PARTS = "parts_of_isaac.safetensors"
VISION = "model.vision_embedding"
PLACES = f"{VISION}.0.embeddings.position_embedding.weight"


def save_isaac(folder: Path, nested: bool = False, **settings: Any) -> None:
    """Isaac with up to 49 visual tokens, each of 2 x 2 patches. nested: with a `text_config` and a `text_model`."""
    words = tokenizer(ISAAC_VISUAL, "<start>", "<end>", image_token=IMAGE)
    start, end = words.convert_tokens_to_ids(["<start>", "<end>"])
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    text = decoder(len(words), rms_norm_eps=1e-6, tie_word_embeddings=False, **settings)
    vision = tower(SIDE * PATCH) | {"patch_size": PATCH}
    config = transformers.PaddleOCRVLConfig(
        vision_config={**vision, "spatial_merge_size": 2},
        text_config={**text, "rope_parameters": {**rope, "mrope_section": [8, 4, 4]}},
        image_token_id=words.convert_tokens_to_ids(IMAGE),
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    images = transformers.PaddleOCRVLImageProcessor(patch_size=PATCH, **HALVES)
    processor = transformers.PaddleOCRVLProcessor(image_processor=images, tokenizer=words)
    converted = folder / CONVERTED
    save(transformers.PaddleOCRVLForConditionalGeneration(config), processor, converted)
    parts = draw_parts()
    save_file(parts, converted / PARTS)
    weights = {**published(load_file(converted / "model.safetensors")), **parts}
    if nested:
        weights = {deeper(name): weight for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    words.chat_template = CHAT.replace("IMAGE", IMAGE)
    words.save_pretrained(folder)
    shuffled = {"model_type": "pixel_shuffle_siglip2", "num_patches": SIDE**2, "pixel_shuffle_scale_factor": 2}
    written = {
        "architectures": ["IsaacForConditionalGeneration"],
        "model_type": "isaac",
        "rope_theta": rope["rope_theta"],
        **({"text_config": {**text, "model_type": "qwen3", "rope_parameters": rope}} if nested else {}),
        "vision_config": {**vision, **shuffled, "num_channels": 3},
        "vision_min_num_patches": LEAST,
        "vision_max_num_patches": MOST,
        "pixel_shuffle_scale": 2,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps({**text, **written}))


def draw_parts() -> dict[str, Tensor]:
    """Norms of queries and keys, position embeddings, and the projector."""
    generator = torch.Generator().manual_seed(1)
    shapes = {PLACES: (SIDE**2, WIDTH)}
    shapes |= {f"{VISION}.1.weight": (16 * WIDTH, 4 * WIDTH), f"{VISION}.3.weight": (WIDTH, 16 * WIDTH)}
    drawn = {name: torch.empty(shape).normal_(std=0.15, generator=generator) for name, shape in shapes.items()}
    return {**draw_norms(merged=False), **drawn}


def published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The PaddleOCR-VL's weights that Isaac has too, under its names and in its order."""
    found = {}
    for name, weight in weights.items():
        if name.startswith("visual.vision_model."):
            name = name.replace("visual.vision_model", f"{VISION}.0")
            found[name] = weight.permute(0, 2, 3, 1).flatten(1).contiguous() if weight.ndim == 4 else weight
        elif not name.startswith("mlp_AR."):
            found[name] = weight
    return found


def deeper(name: str) -> str:
    """The name of a weight in the nested format."""
    inside = name.startswith("model.") and not name.startswith(VISION)
    return name.replace("model.", "model.text_model.", 1) if inside else name


def see_as_isaac(model: Any, processor: Any, folder: Path) -> None:
    """Make a PaddleOCR-VL and its processor the Isaac that was saved beside it; others have no such file."""
    from tokenprune.adapters.families.paddleocr_vl import PaddleOCRVLAdapter

    if not (folder / PARTS).exists():
        return
    weights, seeing, projector = load_file(folder / PARTS), model.model.visual.vision_model, model.model.projector
    read_halves(model, PaddleOCRVLAdapter)
    norm_queries_and_keys(model, weights)
    seeing.encoder.rotary_pos_emb = Unrotated()
    seeing.embeddings.position_embedding.weight.data.zero_()
    seeing.embeddings.register_forward_hook(
        lambda module, given, named, made: made + places(weights[PLACES], named["grid_thw"]), with_kwargs=True
    )
    inner, outer = nn.Linear(4 * WIDTH, 16 * WIDTH, bias=False), nn.Linear(16 * WIDTH, WIDTH, bias=False)
    for module, number in ((inner, 1), (outer, 3)):
        module.load_state_dict({"weight": weights[f"{VISION}.{number}.weight"]})
    projector.pre_norm, projector.linear_1, projector.act, projector.linear_2 = nn.Identity(), inner, nn.SiLU(), outer
    model.model.get_rope_index = MethodType(position_ids, model.model)
    answer_after_largest(model)
    processor.image_processor = Images()


class Unrotated(nn.Module):
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        whole = torch.ones(len(position_ids), WIDTH // 2)
        return whole, torch.zeros_like(whole)


def places(embeddings: Tensor, grids: Tensor) -> Tensor:
    """The position embeddings of all patches, resized to the grid of each image."""
    square = embeddings.T.unflatten(1, (SIDE, SIDE))[None]
    resized = [interpolate(square, (h, w), mode="bilinear", antialias=True) for _, h, w in grids.tolist()]
    return torch.cat([one[0].flatten(1).T for one in resized])


def position_ids(self: Any, input_ids: Tensor, image_grid_thw: Tensor, **others: Any) -> tuple[Tensor, Tensor]:
    """As in vLLM: what follows an image begins after its largest component, but after its first one if that is the end
    of the prompt."""
    groups = [(image, len([*ones])) for image, ones in groupby((input_ids[0] == self.config.image_token_id).tolist())]
    parts, begin, grids = [], 0, iter(image_grid_thw.tolist())
    for number, (image, n_tokens) in enumerate(groups):
        if not image:
            parts.append((begin + torch.arange(n_tokens)).expand(3, -1))
            begin += n_tokens
            continue
        _, height, width = next(grids)
        grid = torch.cartesian_prod(torch.tensor([begin]), torch.arange(height // 2), torch.arange(width // 2))
        parts.append(grid.view(-1, 3).T)
        begin = begin + 1 if number >= len(groups) - 2 else int(parts[-1].max()) + 1
    found = torch.cat(parts, 1)
    return found[:, None], (found.max() + 1 - found.shape[1]).view(1, 1)


def answer_after_largest(model: Any) -> None:
    """Let position IDs of an answer begin after the largest one of the prompt, as in vLLM, rather than the last one."""
    update = model._update_model_kwargs_for_generation

    def updated(outputs: Any, named: dict[str, Any], **others: Any) -> dict[str, Any]:
        largest = named["position_ids"][1:].amax()
        found = update(outputs, named, **others)
        found["position_ids"][1:, :, -1] = largest + 1
        return found

    model._update_model_kwargs_for_generation = updated


class Images:
    """vLLM's image processor, for images whose size it only rounds."""

    merge_size = 2

    def fetch_images(self, images: Any) -> Any:
        return images

    def __call__(self, images: Any, **others: Any) -> dict[str, Tensor]:
        patches, grids = [], []
        for image in images:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
            rows, columns = (2 * -(-side // (2 * PATCH)) for side in pixels.shape[-2:])
            assert LEAST <= rows * columns <= MOST
            resized = interpolate(pixels, (rows * PATCH, columns * PATCH), mode="bilinear")[0] / 255
            cut = ((resized - 0.5) / 0.5).unflatten(1, (rows, PATCH)).unflatten(3, (columns, PATCH))
            patches.append(cut.permute(1, 3, 0, 2, 4).flatten(0, 1))
            grids.append([1, rows, columns])
        return {"pixel_values": torch.cat(patches), "image_grid_thw": torch.tensor(grids)}


@cache
def serve_small_isaac() -> None:
    """Let vLLM take small images, since its processor has the published sizes in its code."""
    from vllm.transformers_utils.processors.isaac import IsaacImageProcessor

    IsaacImageProcessor.__init__.__defaults__ = (PATCH, MOST, LEAST, 2)
