"""Towers: their layers, and RADIO's."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from helpers.families import FAMILIES
from helpers.tiny import prompt, tiny_llava
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

import tokenprune
from tokenprune import FoPru, UnsupportedError
from tokenprune.adapters import Tower, adapter_for, register_tower
from tokenprune.adapters.towers import TOWERS
from tokenprune.encoded import CapturePoints


class TwoBlocks(nn.Module):
    """A vision encoder that tokenprune does not know: no CLS token, and attention with other names."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.blocks = nn.ModuleList(Block(config.hidden_size) for _ in range(2))

    def forward(self, pixel_values: Tensor, **settings: Any) -> Any:
        states = [self.embed(pixel_values).flatten(2).transpose(1, 2)]
        for block in self.blocks:
            states.append(states[-1] + block(states[-1]))
        return BaseModelOutputWithPooling(last_hidden_state=states[-1], hidden_states=tuple(states))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, hidden: Tensor) -> Tensor:
        q, k, v = (part(hidden).unflatten(-1, (4, -1)).transpose(1, 2) for part in (self.to_q, self.to_k, self.to_v))
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def points(block: Any) -> CapturePoints:
    return CapturePoints(block, {"queries": block.to_q, "keys": block.to_k})


@pytest.fixture
def outsider() -> Iterator[Any]:
    model = tiny_llava("siglip")
    config = model.model.vision_tower.config
    config.model_type = "two_blocks"
    torch.manual_seed(0)
    model.model.vision_tower = TwoBlocks(config).eval()
    yield model
    TOWERS.pop("two_blocks", None)


def test_an_unknown_tower_is_refused_with_how_to_add_it(outsider: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"register_tower\('two_blocks', Tower\(\.\.\.\)\)"):
        tokenprune.patch(outsider, FoPru())


def test_a_registered_tower_gives_its_attention(outsider: Any) -> None:
    register_tower("two_blocks", Tower(lambda tower: tower.blocks, points, n_prefix=0))
    inputs = prompt([1])
    with torch.no_grad(), tokenprune.patch(outsider, FoPru(keep=4, layer=0, score="column")) as handle:
        outsider(**inputs)
        tower = outsider.model.vision_tower
        hidden = tower.embed(inputs["pixel_values"]).flatten(2).transpose(1, 2)
        block = tower.blocks[0]
        q, k = (part(hidden).unflatten(-1, (4, -1)).transpose(1, 2) for part in (block.to_q, block.to_k))
        expected = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1).mean(1).sum(1)[0]
    (image,) = handle.report.images
    torch.testing.assert_close(image.scores, expected)
    assert image.kept.tolist() == sorted(expected.topk(4).indices.tolist())


# Nemotron-H Omni's tower: all images in one row, or the steps of videos in a batch, each after its own class and
# register tokens.


PREFIX = 4


@cache
def model_of() -> Any:
    return FAMILIES["nemotron-omni"].build("eager")


def inputs_of(kind: str) -> dict[str, Any]:
    family = FAMILIES["nemotron-omni"]
    return family.prompt([2, 1]) if kind == "image" else family.prompt([0, 0], videos_per_row=[1, 1])


def tiles_of(states: Tensor, inputs: dict[str, Any]) -> list[Tensor]:
    """Split the states of a layer into the tokens of every image, or of every step of a video."""
    if "image_grid_hw" not in inputs:
        return list(states)
    return list(states[0].split((inputs["image_grid_hw"].prod(-1) + PREFIX).tolist()))


def report_of(inputs: dict[str, Any], strategy: tokenprune.Strategy) -> list[tokenprune.ImageReport]:
    with torch.no_grad(), tokenprune.patch(model_of(), strategy) as handle:
        model_of()(**inputs)
    return handle.report.images


def eager_weights(inputs: dict[str, Any], layer: int) -> list[Tensor]:
    """Return the attention (heads, tokens, tokens) of every tile, from the tower's own attention module."""
    found: list[Tensor] = []
    attention = model_of().vision_model.encoder.layer[layer].attention
    hook = attention.register_forward_hook(lambda module, args, output: found.append(output[1]))
    with torch.no_grad():
        model_of()(**inputs)
    hook.remove()
    (weights,) = found
    if "image_grid_hw" not in inputs:
        return list(weights)
    ends = (inputs["image_grid_hw"].prod(-1) + PREFIX).cumsum(0).tolist()  # on the diagonal
    return [weights[0, :, start:end, start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize("kind", ["image", "video"])
def test_attention_is_that_of_the_tower(kind: str, layer: int) -> None:
    inputs = inputs_of(kind)
    assert adapter_for(model_of()).tower.n_prefix == PREFIX
    own = [weights[:, PREFIX:, PREFIX:].mean(0).sum(0) for weights in eager_weights(inputs, layer)]
    firsts = [weights[:, 0, PREFIX:].mean(0) for weights in eager_weights(inputs, layer)]
    for strategy, expected in ((FoPru(layer=layer), own), (FoPru(layer=layer, score="cls"), firsts)):
        tiles = iter(expected)
        for image in report_of(inputs, strategy):
            maps = torch.stack([next(tiles) for _ in range(image.layout.n_tiles)])
            assert image.scores is not None
            wanted = image.layout.to_tokens(maps)
            torch.testing.assert_close(image.scores, wanted, atol=1e-5, rtol=1e-5)
            assert wanted.std() > 0.02 * wanted.mean()  # far above the tolerance
        assert next(tiles, None) is None


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_visual_token_is_given_the_patches_that_it_is_made_from(kind: str) -> None:
    model, inputs, rows = model_of(), inputs_of(kind), []

    def restart(module: Any, args: Any, output: Tensor) -> Tensor:
        rows.append(output.detach().requires_grad_())
        return rows[-1]

    hook = model.vision_model.encoder.layer[-1].register_forward_hook(restart)
    names = ("pixel_values", "image_grid_hw", "pixel_values_videos")
    given = {name: inputs[name] for name in names if name in inputs}
    features = getattr(model, f"get_{kind}_features")(**given).pooler_output
    hook.remove()
    direction = torch.randn(features[0].shape[-1], generator=torch.Generator().manual_seed(0))
    start = 0
    for image, own in zip(report_of(inputs, FoPru()), features, strict=True):
        assert image.n_visual == len(own)
        for number, feature in enumerate(own):
            (slope,) = torch.autograd.grad(feature @ direction, rows, retain_graph=True)
            tiles = tiles_of(slope.abs().sum(-1, keepdim=True) > 0, inputs)
            patches = torch.stack([tile[PREFIX:, 0] for tile in tiles[start : start + image.layout.n_tiles]])
            carried = image.layout.to_tokens(patches.float())
            assert carried[number] == 1
            assert carried.sum() == 1
        start += image.layout.n_tiles


def test_pixels_are_the_image_that_the_processor_cut_up() -> None:
    transformers = pytest.importorskip("transformers.models.nemotron_h_omni.image_processing_nemotron_h_omni")
    colors = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    processor = transformers.NemotronH_Omni_Reasoning_V3ImageProcessor(
        patch_size=4, min_num_patches=1, max_num_patches=60, max_model_len=1000
    )
    given = processor(images=[colors], return_tensors="pt")
    assert given["image_grid_hw"].tolist() == [[6, 10]]
    adapter = adapter_for(model_of())
    (image,) = adapter.tile_pixels(dict(given))
    expected = torch.from_numpy(colors).permute(2, 0, 1) / 255
    torch.testing.assert_close(adapter.tower.colors(image[None])[0], expected, atol=1e-5, rtol=0)
