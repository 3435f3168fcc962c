"""HiPrune against selections by hand and by the authors' code, and the layer that its object layer is."""

from dataclasses import replace

import pytest
import torch
from helpers.families import FAMILIES
from helpers.tiny import prompt, tiny_llava
from helpers.tokens.scored import ANYRES, scored

import tokenprune
from tokenprune import Compose, FoPru, HiPrune, SettingError, UnsupportedError
from tokenprune.strategies.pre_llm.hiprune import neighbours
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

#: What Danielement321/HiPrune at 6e83a12 (LLaVA) keeps of `drawn_like_theirs`.
RELEASED = [9, 15, 27, 29, 30, 31, 46, 47, 50, 52, 77, 82, 83, 102, 116, 126, 128, 139, 144, 145, 166, 168, 169, 170]
RELEASED += [184, 187, 193, 203, 215, 216, 224, 225, 238, 245, 261, 269, 271, 272, 292, 297, 303, 314, 317, 365, 372]
RELEASED += [389, 405, 421, 422, 435, 459, 467, 469, 483, 485, 493, 502, 507, 510, 512, 520, 532, 546, 571]


def two_layers(early: list[float], late: list[float], layout: Layout) -> VisualTokens:
    tokens = scored(late, layout)
    attention = scored(early, layout).vision_attention
    return replace(tokens, statistics={**tokens.statistics, "early_attention": attention})


def test_it_keeps_what_the_released_code_keeps() -> None:
    layout = Layout.raster((1, 24, 24))
    drawn = 1.5 * torch.randn(2, 2, 1, 4, 577, 8, generator=torch.Generator().manual_seed(1))
    early, late = (VisionAttention(queries, keys, 8**-0.5, 1, layout) for queries, keys in drawn)
    tokens = VisualTokens(torch.zeros(576, 2), layout, 0, {"vision_attention": late, "early_attention": early})
    assert HiPrune(keep=64).select(tokens).kept.tolist() == RELEASED


def test_anchors_buffers_and_registers() -> None:
    """Of a 4 x 5 raster, the anchor is 7 (row 1, column 2) with 6, 8, 2 and 12; the late layer adds 19 and 0."""
    early = [1.0] * 20
    early[7] = 9.0
    late = [1.0] * 20
    late[19], late[0], late[7] = 8.0, 7.0, 9.0
    tokens = two_layers(early, late, Layout.raster((1, 4, 5)))
    assert HiPrune(keep=7, alpha=0.7).select(tokens).kept.tolist() == [0, 2, 6, 7, 8, 12, 19]
    assert HiPrune(keep=3, alpha=0.1).select(tokens).kept.tolist() == [0, 7, 19]  # no anchors


def test_neighbours_end_at_frames_and_skip_newline_tokens() -> None:
    """Of 2 x 3: before the first token is itself, and after the end of a row comes the next row."""
    assert neighbours(Layout.raster((1, 2, 3)))[[0, 2, 4]].tolist() == [[0, 1, 0, 3], [1, 3, 0, 5], [3, 5, 1, 5]]
    assert neighbours(Layout(((2, 2, 3),)))[[5, 6]].tolist() == [[4, 5, 2, 5], [6, 7, 6, 9]]
    near = neighbours(ANYRES)
    assert near[12].tolist() == [11, 14, 9, 17]  # the end of the canvas's first row, before a newline token
    assert not ANYRES.newline_mask()[near[~ANYRES.newline_mask()]].any()


@pytest.mark.parametrize(("object_layer", "layer"), [(None, 0), (1, 1), (-1, 2)])
def test_anchors_come_from_the_object_layer(object_layer: int | None, layer: int) -> None:
    """Three eighths of three layers end with the first."""
    inputs, seen = prompt([1]), []

    class Watching(HiPrune):
        def select(self, tokens: VisualTokens) -> tokenprune.Selection:
            seen.extend([tokens.early_attention.received(), tokens.vision_attention.received()])
            return super().select(tokens)

    with torch.no_grad():
        with tokenprune.patch(tiny_llava("clip"), Watching(object_layer=object_layer)) as handle:
            handle.model(**inputs)
        eager = tiny_llava("clip", attention="eager").model.vision_tower
        maps = eager(inputs["pixel_values"], output_attentions=True).attentions
    for found, number in zip(seen, (layer, -2), strict=True):
        torch.testing.assert_close(found, maps[number].mean(1)[0, 1:, 1:].sum(0), atol=1e-5, rtol=1e-5)


def test_windowed_layers_are_passed_over() -> None:
    """Of Qwen2.5-VL's layers, the nearest that compares all patches is read; another one is refused by name."""
    family = FAMILIES["qwen2.5-vl"]
    model = family.build()
    with torch.no_grad(), tokenprune.patch(model, HiPrune(keep_ratio=0.5)) as handle:
        model(**family.prompt([1]))
        assert handle.report.images
    with pytest.raises(UnsupportedError, match="layer=0 of this vision tower attends within small windows"):
        tokenprune.patch(model, HiPrune(object_layer=0))


def test_wrong_uses_are_refused() -> None:
    with pytest.raises(SettingError, match="object_layer=True is not an encoder layer; write object_layer=8"):
        HiPrune(object_layer=True)
    with pytest.raises(SettingError, match=r"alpha=2\.0 is not a share"):
        HiPrune(alpha=2.0)
    with pytest.raises(SettingError, match="HiPrune works on whole images only"):
        Compose(FoPru(keep_ratio=0.5), HiPrune(keep_ratio=0.5))
