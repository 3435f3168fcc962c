"""HunyuanOCR's position IDs of four components, and its dynamic rotary embedding, which is transformers' own."""

# pyright: reportMissingImports=false

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.served.engine import engine, needs_vllm
from helpers.served.family import FOPRU
from helpers.served.stored import save
from torch import nn

from tokenprune import FoPru
from tokenprune.encoded import EncodedImage
from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.settings import Settings

pytestmark = needs_vllm


def test_offsets_are_places_on_the_grid() -> None:
    """Of 2 x 1 visual tokens with a newline token after each, and one token before and after all."""
    from tokenprune.serving.vllm.models.hunyuan_vl import LIKE_TEXT, PrunedHunyuanVL, layouts_of
    from tokenprune.serving.vllm.worker.positions import append_offsets, split_offsets

    model: Any = object.__new__(PrunedHunyuanVL)
    config = SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2))
    (layout,) = layouts_of(torch.tensor([[1, 4, 2]]), config)
    offsets = model.offsets(EncodedImage(layout, {}))
    grid = [[1, 0, 0, 0], [2, 1, 0, 0], [3, 0, 1, 0], [4, 1, 1, 0]]
    assert offsets.tolist() == [[0, *[LIKE_TEXT] * 3], *grid, [5, *[LIKE_TEXT] * 3]]
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        rows = torch.zeros(len(offsets), 2, dtype=dtype)
        assert torch.equal(split_offsets(append_offsets(rows, offsets), 4)[1], offsets)


@pytest.mark.slow
def test_no_position_ids_beyond_those_that_a_dynamic_embedding_was_made_for(tmp_path: Path) -> None:
    """A longer request would change the frequencies of all."""
    save("hunyuan_vl", tmp_path, max_position_embeddings=512)
    said = r"HunYuanVLRotaryEmbedding ends at 512 position IDs, and original ones may run to 516\. Lower .* to 128, or"
    with (
        pytest.raises(UnsupportedError, match=said),
        engine(tmp_path, "TokenPruneHunyuanVL", FOPRU, max_model_len=129),
    ):
        pass


@pytest.mark.parametrize(("length", "refused"), [(999, True), (1000, False)])
def test_embeddings_of_transformers(length: int, refused: bool) -> None:
    """As the bundled model's might be."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from tokenprune.serving.vllm.worker.rope import lengthen

    settings = Settings(FoPru(keep_ratio=0.25), "compact")
    for rope_type in ("dynamic", "linear"):
        rope = {"rope_type": rope_type, "rope_theta": 1e4, "factor": 2.0}
        config = LlamaConfig(rope_parameters=rope, max_position_embeddings=length, num_hidden_layers=1)
        decoder = nn.Sequential(LlamaRotaryEmbedding(config))
        if refused and rope_type == "dynamic":
            with pytest.raises(UnsupportedError, match="LlamaRotaryEmbedding ends at 999 position IDs, and compact"):
                lengthen(decoder, settings, 1000)
        else:
            lengthen(decoder, settings, 1000)
