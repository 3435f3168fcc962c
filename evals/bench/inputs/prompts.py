"""The timed prompts: one image per row, with text around its placeholder tokens."""

from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from tokenprune.adapters import adapter_for
from tokenprune.prompts import encode_chat

#: The image's side in pixels, for models that take any size: 576 visual tokens in Qwen2.5-VL, 2 x 2 tiles in
#: LLaVA-OneVision.
SIDE = 672
N_TEXT = 40
#: Sides that show whether a processor's output depends on the image's size.
SIDES = (56, 448, SIDE, 2 * SIDE)
QUESTION = "What is in this picture, where is it, and what does it look like? Answer in one word."
#: Inputs that run along the sequence; all others belong to the image.
ALONG = ("input_ids", "attention_mask", "mm_token_type_ids")

Inputs = dict[str, Tensor]


def random_prompt(model: Any, batch: int, *, side: int = SIDE, shown: Image.Image | None = None) -> Inputs:
    """Return `batch` rows of an image and `N_TEXT` random text tokens around it.

    side: of the image in pixels; a model of one size gets its own.
    shown: the image, of that side; None is noise.
    """
    generator = torch.Generator().manual_seed(0)
    image, token = image_of(model.config, side, generator), model.config.image_token_id
    if shown is not None:
        image["pixel_values"] = pixels_of(model.config, shown, image["pixel_values"].shape)
    count = count_of(model, image)
    before = N_TEXT // 2
    ids = torch.randint(1, min(1000, token), (batch, count + N_TEXT), generator=generator)
    ids[:, before : before + count] = token
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if hasattr(model.config.vision_config, "spatial_merge_size"):
        text["mm_token_type_ids"] = (ids == token).int()
    given = {name: torch.cat([tensor] * batch) for name, tensor in image.items()} | text
    return {name: tensor.to(model.device, _dtype(model, tensor)) for name, tensor in given.items()}


def question_prompt(
    model: Any, processor: Any, batch: int, *, side: int = SIDE, shown: Image.Image | None = None
) -> Inputs:
    """Return `batch` rows of an image and a question, as the model's own processor makes them; without an image, of a
    grey one."""
    image = Image.new("RGB", (side, side), "grey") if shown is None else shown
    return dict(encode_chat(processor, [[image]] * batch, [QUESTION] * batch).to(model.device, model.dtype))


def only_side(config: Any) -> int | None:
    """Return the side in pixels that `image_of` gives every image of a model; None if the model takes several."""
    vision = config.vision_config
    several = hasattr(vision, "spatial_merge_size") or hasattr(config, "image_grid_pinpoints")
    return None if several else _side(vision)


def takes_sides(processor: Any) -> bool:
    """Return whether a model's inputs depend on the size of its image."""
    images = [Image.new("RGB", (side, side), "grey") for side in SIDES]
    made = [encode_chat(processor, [[image]], [QUESTION]) for image in images]
    return len({str({name: tuple(value.shape) for name, value in inputs.items()}) for inputs in made}) > 1


def n_visual(model: Any, inputs: Inputs) -> int:
    """Return the number of visual tokens of each row."""
    return int((inputs["input_ids"][0] == model.config.image_token_id).sum())


def features(model: Any, inputs: Inputs) -> Float[Tensor, "batch visual width"]:
    """Return the projected features of every row's visual tokens, the same number in each, whether an image is encoded
    whole or as tiles."""
    adapter = adapter_for(model)
    image = {name: tensor for name, tensor in inputs.items() if name not in ALONG}
    features = getattr(adapter.core, adapter.modalities[0].function)(**image, return_dict=True).pooler_output
    rows = features.flatten(0, -2) if isinstance(features, Tensor) else torch.cat(list(features))
    return rows.unflatten(0, (len(inputs["input_ids"]), -1))


def _side(vision: Any) -> int:
    """Return the side in pixels of an image or tile of a vision tower, whose config may give height and width."""
    return vision.image_size if isinstance(vision.image_size, int) else vision.image_size[0]


def _dtype(model: Any, tensor: Tensor) -> torch.dtype:
    return model.dtype if tensor.is_floating_point() else tensor.dtype


def count_of(model: Any, image: Inputs) -> int:
    """Return the number of visual tokens of one image."""
    adapter = adapter_for(model)
    return adapter.layouts(adapter.modalities[0], image, None)[0].n_visual


def pixels_of(config: Any, shown: Image.Image, shape: torch.Size) -> Tensor:
    """Return the pixels that a processor would make of an image, of the `shape` that noise has: resized, -1 to 1, and,
    for models that take any size, in patches; the same for every tile."""
    vision = config.vision_config
    patched = hasattr(vision, "spatial_merge_size")
    side = round(shape[0] ** 0.5) * vision.patch_size if patched else _side(vision)
    colors = torch.from_numpy(np.array(shown.resize((side, side), Image.Resampling.BICUBIC))).float() / 127.5 - 1
    if not patched:
        return rearrange(colors, "y x channel -> channel y x").expand(shape)
    return repeat(
        colors,
        "(row down y) (column across x) channel -> (row column down across) (channel time y x)",
        down=vision.spatial_merge_size,
        across=vision.spatial_merge_size,
        y=vision.patch_size,
        x=vision.patch_size,
        time=vision.temporal_patch_size,
    )


def image_of(config: Any, side: int, generator: torch.Generator) -> Inputs:
    """Return the inputs that a processor would make of one square image of noise."""
    vision = config.vision_config
    if (only := only_side(config)) is not None:
        return {"pixel_values": torch.randn(1, 3, only, only, generator=generator)}
    if hasattr(vision, "spatial_merge_size"):
        merged = vision.patch_size * vision.spatial_merge_size
        patches = side // merged * vision.spatial_merge_size
        width = 3 * vision.temporal_patch_size * vision.patch_size**2
        return {
            "pixel_values": torch.randn(patches**2, width, generator=generator),
            "image_grid_thw": torch.tensor([[1, patches, patches]]),
        }
    size = vision.image_size
    n_tiles = image_size_to_num_patches([side, side], config.image_grid_pinpoints, size)
    return {
        "pixel_values": torch.randn(1, n_tiles, 3, size, size, generator=generator),
        "image_sizes": torch.tensor([[side, side]]),
    }
