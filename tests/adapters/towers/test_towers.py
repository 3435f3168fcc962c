"""Towers of a user's own, and the pixels that RADIO gets."""

from collections.abc import Iterator
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


def test_pixels_of_nemotron_are_the_image_that_the_processor_cut_up() -> None:
    transformers = pytest.importorskip("transformers.models.nemotron_h_omni.image_processing_nemotron_h_omni")
    colors = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    processor = transformers.NemotronH_Omni_Reasoning_V3ImageProcessor(
        patch_size=4, min_num_patches=1, max_num_patches=60, max_model_len=1000
    )
    given = processor(images=[colors], return_tensors="pt")
    assert given["image_grid_hw"].tolist() == [[6, 10]]
    adapter = adapter_for(FAMILIES["nemotron-omni"].build())
    (image,) = adapter.tile_pixels(dict(given))
    expected = torch.from_numpy(colors).permute(2, 0, 1) / 255
    torch.testing.assert_close(adapter.tower.colors(image[None])[0], expected, atol=1e-5, rtol=0)
