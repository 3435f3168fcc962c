"""GOT-OCR 2, whose convolutions overlap, and Granite 4 Vision, which pools by windows: the tower's attention, and the
patches that a visual token is made from."""

from functools import cache
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from torch import Tensor

import tokenprune
from tokenprune import FoPru, Grid, UnsupportedError
from tokenprune.adapters import adapter_for


@cache
def model_of(name: str, attention: str = "sdpa") -> Any:
    return FAMILIES[name].build(attention)


def images_of(name: str, strategy: tokenprune.Strategy) -> list[tokenprune.ImageReport]:
    model = model_of(name)
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        model(**FAMILIES[name].prompt([1, 2]))
    return handle.report.images


def eager_maps(name: str, layer: int) -> Tensor:
    """Return the attention weights from the unpatched eager model's own module."""
    model, maps = model_of(name, "eager"), []
    adapter = adapter_for(model)
    (point,) = adapter.capture_points(layer)
    hook = point.attention.register_forward_hook(lambda module, args, output: maps.append(output[1]))
    with torch.no_grad():
        model(**FAMILIES[name].prompt([1, 2]))
    hook.remove()
    (found,) = maps
    return found.view(-1, adapter.vision_tower.config.num_attention_heads, *found.shape[-2:])


@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize("name", ["granite4-vision", "got-ocr2"])
def test_attention_is_that_of_the_eager_map(name: str, layer: int) -> None:
    images = images_of(name, FoPru(layer=layer))
    maps, n_prefix = eager_maps(name, layer), adapter_for(model_of(name)).tower.n_prefix
    received = maps[:, :, n_prefix:, n_prefix:].mean(1).sum(1)
    for image, own in zip(images, received.split([image.layout.n_tiles for image in images]), strict=True):
        assert image.scores is not None
        torch.testing.assert_close(image.scores, image.layout.to_tokens(own), atol=1e-5, rtol=1e-5)
    assert received.std() > 0.05  # far from uniform, so that a wrong row or layer would show


def visual_features(name: str, tile: int | None = None, patch: int = 0) -> Tensor:
    """Return the features (visual, width) of all images of a prompt. If a tile is given, the last layer of the tower
    that the features are made from returns something else for one of its patches."""
    model, found = model_of(name), []
    adapter = adapter_for(model)

    def disturbed(states: Tensor) -> Tensor:
        states = states.clone()
        flat = states if states.ndim == 3 else states.flatten(1, 2)  # a view
        flat[tile, adapter.tower.n_prefix + patch] += torch.linspace(-3, 3, states.shape[-1]) ** 3
        return states

    def disturb(module: Any, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return disturbed(output)
        output.hidden_states = (*output.hidden_states[:-1], disturbed(output.hidden_states[-1]))
        return output

    def look(module: Any, args: Any, kwargs: Any) -> None:
        late = kwargs.get("deepstack_features")
        found.append(kwargs["inputs_embeds"] if late is None else adapter.visual_features(kwargs))

    inputs = FAMILIES[name].prompt([1, 2])
    hooks = [adapter.language_model.register_forward_pre_hook(look, with_kwargs=True)]
    if tile is not None:
        layer = adapter.tower.layers(adapter.vision_tower)[adapter.encoder_layer(None)]
        shown = adapter.vision_tower if name == "granite4-vision" else layer  # which stores its layers' states
        hooks.append(shown.register_forward_hook(disturb))
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return found[0][FAMILIES[name].visual(inputs["input_ids"])]


def test_a_visual_token_is_given_the_patches_that_it_is_made_from() -> None:
    """If a patch changes, exactly those features change to which a map over patches carries it."""
    name = "granite4-vision"
    images, before = images_of(name, Grid(keep_ratio=0.5)), visual_features(name)
    ends = torch.tensor([image.layout.n_tiles for image in images]).cumsum(0).tolist()
    starts = torch.tensor([0, *(image.n_visual for image in images)]).cumsum(0).tolist()
    n_patches, n_changed = eager_maps(name, 0).shape[-1] - adapter_for(model_of(name)).tower.n_prefix, 0
    for tile, patch in [(0, 0), (1, 1), (1, 14), (ends[-1] - 1, 10), (ends[0], 15)]:
        changed = (visual_features(name, tile, patch) - before).abs().amax(-1) > 1e-4
        number = next(i for i, end in enumerate(ends) if tile < end)
        layout = images[number].layout
        values = torch.zeros(layout.n_tiles, n_patches)
        values[tile - (ends[number] - layout.n_tiles), patch] = 1.0
        carried = layout.to_tokens(values) > 0
        if layout.newlines is not None:
            carried &= ~layout.newlines
        expected = torch.zeros(len(before), dtype=torch.bool)
        expected[starts[number] : starts[number + 1]] = carried
        assert torch.equal(changed, expected)
        n_changed += int(changed.sum())
    assert n_changed >= 4  # Granite 4 Vision cuts off padding, so padding has no visual tokens


def test_convolutions_that_overlap() -> None:
    """A patch is assigned to the visual token that it changes most."""
    (image, *_), before = images_of("got-ocr2", Grid(keep_ratio=0.5)), visual_features("got-ocr2")
    for patch in (0, 5 * 16 + 6, 255):
        change = (visual_features("got-ocr2", 0, patch) - before).abs().sum(-1)[: image.n_visual]
        values = torch.zeros(1, 256)
        values[0, patch] = 1.0
        (token,) = image.layout.to_tokens(values).nonzero()[:, 0].tolist()
        assert change[token] > 0


def test_windowed_layers_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"layer=1 .* within small windows.* one of 0, 2"):
        tokenprune.patch(model_of("got-ocr2"), FoPru(layer=1))


def test_relative_positions_in_half_precision() -> None:
    """Their products with queries are added to the logits unscaled. A number that is the same for every key changes
    nothing, however large it is."""
    model, inputs, scores = FAMILIES["got-ocr2"].build(), FAMILIES["got-ocr2"].prompt([1]), []
    with torch.no_grad():
        for parameter in (one for part, one in model.named_parameters() if "rel_pos" in part):
            parameter.add_(30)
    for dtype in (torch.float32, torch.float16):
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        with torch.no_grad(), tokenprune.patch(model.to(dtype), FoPru()) as handle:
            model(**inputs)
        scores.append(handle.report.images[0].scores)
    torch.testing.assert_close(scores[1], scores[0], atol=0.1, rtol=0.05)
