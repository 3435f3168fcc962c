"""Attention statistics against the eager attention maps that transformers itself returns."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.families.base import IMAGE, VIDEO
from helpers.tiny import TOWERS, prompt, tiny_llava

import tokenprune
from tokenprune import FoPru, PruningError, ScoreStrategy, UnsupportedError
from tokenprune.tokens import Layout, VisionAttention, VisualTokens


def scores_of(model: Any, inputs: dict[str, Any], strategy: FoPru) -> list[torch.Tensor]:
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        model(**inputs)
    scores = [image.scores for image in handle.report.images]
    return [score for score in scores if score is not None]


@pytest.mark.parametrize(
    ("feature_layer", "layer"), [(-2, -2), (-1, -1), (1, 0), (3, 2), ([-3, -2], -2), ([1, -1], -1)]
)
def test_the_default_layer_is_the_one_whose_output_is_used(feature_layer: Any, layer: int) -> None:
    """vision_feature_layer counts hidden states, the first of which is the embedding."""
    inputs = prompt([1])
    model = tiny_llava("clip", vision_feature_layer=feature_layer)
    default = scores_of(model, inputs, FoPru())
    explicit = scores_of(model, inputs, FoPru(layer=layer))
    assert torch.equal(default[0], explicit[0])


def test_no_layer_made_the_embeddings() -> None:
    model = tiny_llava("clip", vision_feature_layer=0)
    with pytest.raises(UnsupportedError, match=r"vision_feature_layer=0 takes the embeddings.*layer=-2"):
        tokenprune.patch(model, FoPru())


@pytest.mark.parametrize("tower", TOWERS)
def test_the_tower_is_not_disturbed(tower: str) -> None:
    """Its features are bitwise the same, and its attention stays SDPA."""
    model, inputs = tiny_llava(tower), prompt([1])
    calls = []
    tokenprune.patch(model, FoPru()).remove()  # an untested combination is checked once
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(args)
        return sdpa(*args, **kwargs)

    with torch.no_grad(), pytest.MonkeyPatch.context() as patching:
        patching.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
        before = model.model.vision_tower(inputs["pixel_values"]).last_hidden_state
        n_calls = len(calls)
        with tokenprune.patch(model, FoPru()):
            after = model.model.vision_tower(inputs["pixel_values"]).last_hidden_state
    assert torch.equal(before, after)
    assert len(calls) == 2 * n_calls == 2 * 3


def test_what_was_not_declared_names_the_line_to_add() -> None:
    tokens = VisualTokens(torch.zeros(4, 2), Layout.raster((1, 2, 2)))
    with pytest.raises(PruningError, match=r"tokens\.pixels is not among the strategy's needs") as error:
        _ = tokens.pixels
    assert 'needs = frozenset({"pixels"})' in str(error.value)
    with pytest.raises(PruningError, match="needs = frozenset"):
        _ = tokens.vision_attention


def test_the_cls_row_of_a_tower_without_cls() -> None:
    vision = VisionAttention(torch.randn(1, 2, 9, 4), torch.randn(1, 2, 9, 4), 0.5, 0, Layout.raster((1, 3, 3)))
    with pytest.raises(PruningError, match="add 'cls' to the strategy"):
        vision.cls_row()
    with pytest.raises(UnsupportedError, match=r"siglip_vision_model tower does not have it.*") as error:
        tokenprune.patch(tiny_llava("siglip"), FoPru(score="cls"))
    assert 'FoPru(score="column")' in str(error.value)


@pytest.mark.parametrize("tower", TOWERS)
def test_colors_undo_the_normalisation(tower: str) -> None:
    """Pixels from the tower's own processor give the image's own colours again."""
    mean, std = {
        "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
        "siglip": ([0.5] * 3, [0.5] * 3),
        "dinov2": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        "internvl": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }[tower]
    inputs = prompt([1])
    image = torch.rand(1, 3, *inputs["pixel_values"].shape[-2:])
    inputs["pixel_values"] = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with tokenprune.probe(tiny_llava(tower), {"colors"}) as seen:
        torch.testing.assert_close(seen.run(**inputs)[0].tokens.colors, image)


def test_images_and_videos_are_numbered_in_reading_order() -> None:
    numbers: list[tuple[int, int]] = []

    @dataclass(frozen=True)
    class Noting(ScoreStrategy):
        def score(self, tokens: VisualTokens) -> torch.Tensor:
            numbers.append((tokens.image, tokens.n_visual))
            return torch.ones(tokens.n_visual)

    family = FAMILIES["qwen2-vl"]
    one = family.prompt([1], texts=[3], videos_per_row=[1])
    ids, end = one["input_ids"][0], one["input_ids"].shape[1] - 3
    image, video = (int((ids == kind).nonzero()[0]) - 1 for kind in (IMAGE, VIDEO))  # with their markers
    swapped = [*range(image), *range(video, end), *range(video - 3, video), *range(image, video - 3)]
    order = torch.tensor([*swapped, *range(end, end + 3)])
    along = {name: one[name][:, order] for name in one if one[name].shape == one["input_ids"].shape}
    rows = family.prompt([1, 1], videos_per_row=[1, 1])
    for inputs, expected in ((rows, ["image", "video"] * 2), ({**one, **along}, ["video", "image"])):
        numbers.clear()
        with torch.no_grad(), tokenprune.patch(family.build(), Noting()) as handle:
            handle.model(**inputs)
        images = handle.report.images
        assert [image.modality for image in images] == expected
        assert numbers == list(enumerate(image.n_visual for image in images))
