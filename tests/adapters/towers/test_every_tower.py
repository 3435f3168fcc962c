"""Every tower whose visual tokens are means of patches: the attention that strategies read, and which patches a visual
token is made of.

Expected values come from the model itself: the weights of its eager attention, and the patches on which each visual
token depends after the layer that the features are made from.
"""

from typing import Any

import pytest
import torch
from helpers.contract.encoded import encoded, family_of, inputs_of, model_of, patches_of_tokens, softmaxes
from helpers.families import COMPACT_ONLY, FAMILIES
from torch import Tensor

import tokenprune
from tokenprune import FoPru
from tokenprune.adapters import ModelAdapter, adapter_for
from tokenprune.adapters.tested import read_tested

#: Families whose visual tokens are no means of patches, or whose patches are not all known in the last layer.
OTHERS = {
    *("aria", "deepseek-ocr2", "idefics2"),  # test_resampling_towers.py
    *("got-ocr2", "granite4-vision"),  # test_more_towers.py
    *("minicpmv4_6", "minicpmv4_7"),  # test_merging_towers.py
    "step3p7",  # test_crop_towers.py
    *("llava-onevision", "video-llava"),  # layouts/
}
CASES = [
    (name, kind)
    for name, tested in read_tested().items()
    for kind in ("image", "video")
    if name in {**FAMILIES, **COMPACT_ONLY} and name not in OTHERS and "vision_attention" in tested.statistics
    if kind == "image" or family_of(name).video_sizes
]


def received(adapter: ModelAdapter, inputs: dict[str, Any], kind: str, layer: int | None) -> dict[str, Tensor]:
    """Return the attention that each patch receives in one encoder layer from patches and from the CLS token, if there
    is one, averaged over heads, in the order of the layers. Tokens that are no patches get none."""
    (point,) = adapter.capture_points(layer)
    with softmaxes(point.attention) as found, torch.no_grad():
        encoded(adapter, inputs, kind)
    tiles = [tile.mean(0) for weights in found for tile in weights.view(-1, *weights.shape[-3:])]
    n_prefix, sums, firsts = adapter.tower.n_prefix, [], []
    for weights in tiles:
        patches = weights.amax(0) > 0  # nothing attends to padding
        prefix = slice(n_prefix) if adapter.config.model_type != "llama4" else slice(-1, None)  # its CLS token
        patches[prefix] = False
        sums.append(weights[patches].sum(0) * patches)
        firsts.append(weights[prefix][:1].sum(0) * patches)
    return {"column": torch.cat(sums), **({"cls": torch.cat(firsts)} if "cls" in adapter.offers else {})}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_scores_are_the_column_sums_of_the_towers_own_attention(name: str, kind: str) -> None:
    model, inputs = model_of(name), inputs_of(name, kind)
    adapter, ids = adapter_for(model), "compact" if name in COMPACT_ONLY else "original"
    of_token = patches_of_tokens(adapter, inputs, kind)
    made = of_token.any(1)
    for layer in (None, min(getattr(adapter, "global_layers", (0,)))):
        for score, attention in received(adapter, inputs, kind, layer).items():
            strategy = FoPru(layer=layer, score=score)  # pyright: ignore[reportArgumentType]
            with torch.no_grad(), tokenprune.patch(model, strategy, position_ids=ids) as handle:
                model(**inputs)
            images = handle.report.images
            expected = (of_token * attention).sum(1) / of_token.sum(1)
            scores = torch.cat([image.scores for image in images if image.scores is not None])
            torch.testing.assert_close(scores[made], expected[made], atol=1e-5, rtol=1e-5)
            spread = expected[made].std() / expected[made].mean()
            assert spread > 0.02  # far above the tolerance, so a wrong row or layer would show
            ends = [(image.n_visual, image.layout.newlines) for image in images]
            assert torch.equal(made, torch.cat([torch.ones(n).bool() if line is None else ~line for n, line in ends]))
