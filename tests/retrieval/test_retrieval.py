"""Light-ColPali: fewer embeddings per page, merged after the projector, on tiny models with random weights."""

import copy
import sys
from typing import Any

import pytest
import torch
from engine.modes.test_distributed import replica_of
from helpers.families.base import IMAGE, PAD, PATCH, VOCAB, decoder
from helpers.families.base import tower as tower_settings
from helpers.models.retrievers import built, embedded, queries
from helpers.tiny import tiny_llava
from torch import Tensor
from torch._dynamo import config
from torch.nn.functional import normalize
from transformers import ColPaliConfig, ColPaliForRetrieval, ColPaliProcessor, ColQwen2Config, ColQwen2ForRetrieval

import tokenprune
from tokenprune import PruningError, SettingError, UnsupportedError
from tokenprune.retrieval.ward import merge_clusters

FACTORS = (4, 9, 25, 49)
SIDE = 8  # patches per side of ColPali's pages, which have 64
START, END = 93, 94


@pytest.fixture(scope="module")
def colpali() -> Any:
    vision = {**tower_settings(SIDE * PATCH), "model_type": "siglip_vision_model", "projection_dim": 32}
    text = {**decoder(head_dim=8), "model_type": "gemma"}
    vlm = {
        "model_type": "paligemma",
        "vision_config": vision,
        "text_config": text,
        "projection_dim": 32,
        "image_token_index": IMAGE,
        "hidden_size": 32,
    }
    return built(ColPaliForRetrieval, ColPaliConfig(vlm_config=vlm, embedding_dim=16))


@pytest.fixture(scope="module")
def colqwen() -> Any:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": PATCH}
    vlm = {
        "model_type": "qwen2_vl",
        "vision_config": {**vision, "spatial_merge_size": 2, "temporal_patch_size": 2},
        "text_config": {**decoder(rope_parameters=rope), "model_type": "qwen2_vl_text"},
        "image_token_id": IMAGE,
        "video_token_id": 92,
        "vision_start_token_id": START,
        "vision_end_token_id": END,
    }
    return built(ColQwen2ForRetrieval, ColQwen2Config(vlm_config=vlm, embedding_dim=16))


def colpali_pages(pixels: Tensor) -> dict[str, Tensor]:
    ids = torch.tensor([[IMAGE] * SIDE**2 + [1, 7, 9]] * len(pixels))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def colqwen_pages(grids: list[tuple[int, int]], seed: int = 0) -> dict[str, Tensor]:
    """Return pages of (height, width) patches, padded like in the processor: pixels right, tokens left."""
    generator = torch.Generator().manual_seed(seed)
    pixels = [torch.randn(h * w, 3 * 2 * PATCH**2, generator=generator) for h, w in grids]
    rows = [[5, START, *[IMAGE] * (h * w // 4), END, 8, 9] for h, w in grids]
    length = max(map(len, rows))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": (ids != PAD).long(),
        "pixel_values": torch.nn.utils.rnn.pad_sequence(pixels, batch_first=True),
        "image_grid_thw": torch.tensor([[1, h, w] for h, w in grids]),
    }


# The patch.


@pytest.mark.parametrize("factor", FACTORS)
def test_pages_of_colpali(colpali: Any, factor: int) -> None:
    inputs = colpali_pages(torch.randn(2, 3, SIDE * PATCH, SIDE * PATCH, generator=torch.Generator().manual_seed(0)))
    whole = embedded(colpali, inputs)
    with tokenprune.patch_retrieval(colpali, factor):
        light = embedded(colpali, inputs)
    assert light.shape == (2, 3 + 64 // factor, 16)
    assert torch.equal(light[:, :3], whole[:, 64:])
    for row in range(2):
        torch.testing.assert_close(light[row, 3:], merge_clusters(whole[row, :64], factor))


def test_ragged_pages_of_colqwen(colqwen: Any) -> None:
    """In a padded batch, a page gives the same as alone, followed by zeros, which scores ignore."""
    grids = [(8, 8), (4, 8), (12, 12)]
    inputs = colqwen_pages(grids)
    with tokenprune.patch_retrieval(colqwen, 4):
        together = embedded(colqwen, inputs)
        assert together.shape == (3, 5 + 9, 16)
        for row, (h, w) in enumerate(grids):
            n = 5 + h * w // 16
            real = inputs["attention_mask"][row].bool()
            alone = {
                "input_ids": inputs["input_ids"][row : row + 1, real],
                "attention_mask": inputs["attention_mask"][row : row + 1, real],
                "pixel_values": inputs["pixel_values"][row : row + 1, : h * w],
                "image_grid_thw": inputs["image_grid_thw"][row : row + 1],
            }
            torch.testing.assert_close(together[row, :n], embedded(colqwen, alone)[0], atol=2e-5, rtol=0)
            assert not together[row, n:].any()
            assert int(together[row].any(-1).sum()) == n


def test_queries_are_bitwise_as_before(colpali: Any, colqwen: Any) -> None:
    for model in (colpali, colqwen):
        whole = embedded(model, queries())
        with tokenprune.patch_retrieval(model):
            assert torch.equal(embedded(model, queries()), whole)


def test_factor_1_and_remove_are_bitwise_the_unpatched_model(colqwen: Any) -> None:
    inputs = colqwen_pages([(8, 8), (6, 8)])
    whole, before = embedded(colqwen, inputs), [dict(vars(module)) for module in colqwen.modules()]
    with tokenprune.patch_retrieval(colqwen, 1):
        assert torch.equal(embedded(colqwen, inputs), whole)
    first = tokenprune.patch_retrieval(colqwen, 4)
    second = tokenprune.patch_retrieval(colqwen, 9)  # replaces the first one, they do not stack
    assert embedded(colqwen, inputs).shape[1] == 5 + 1
    assert "factor=4, text='all', removed" in repr(first)
    second.remove()
    second.remove()
    assert torch.equal(embedded(colqwen, inputs), whole)
    assert [dict(vars(module)) for module in colqwen.modules()] == before


def test_the_outer_patch_is_in_effect_again_after_the_inner_block(colqwen: Any) -> None:
    inputs = colqwen_pages([(8, 8), (6, 8)])
    whole = embedded(colqwen, inputs)
    with tokenprune.patch_retrieval(colqwen, 4) as outer:
        with tokenprune.patch_retrieval(colqwen, 8) as inner:
            assert (embedded(colqwen, inputs).shape[1], outer.installed) == (5 + 2, False)
        assert (embedded(colqwen, inputs).shape[1], inner.installed) == (5 + 4, False)
        with tokenprune.patch_retrieval(colqwen, 8):
            outer.remove()
        assert torch.equal(embedded(colqwen, inputs), whole)
    tokenprune.patch_retrieval(colqwen, 4)  # not in a block, so it stays replaced
    with tokenprune.patch_retrieval(colqwen, 8):
        pass
    assert torch.equal(embedded(colqwen, inputs), whole)


def test_tuples_copies_and_positional_arguments(colpali: Any) -> None:
    inputs = colpali_pages(torch.randn(1, 3, SIDE * PATCH, SIDE * PATCH, generator=torch.Generator().manual_seed(0)))
    model = copy.deepcopy(colpali)
    handle = tokenprune.patch_retrieval(model, 4)
    light, twin = embedded(model, inputs), copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(model(**inputs, return_dict=False)[0], light)
        given = inputs["input_ids"], inputs["pixel_values"], inputs["attention_mask"]
        assert torch.equal(model(*given).embeddings, light)
        assert torch.equal(model.forward(*given).embeddings, light)  # bypasses hooks, like PEFT up to 0.20
    handle.remove()
    assert embedded(model, inputs).shape[1] == 67
    assert torch.equal(embedded(twin, inputs), light)


def test_a_copy_goes_on_when_the_original_is_unpatched(colpali: Any) -> None:
    """Compiled code checks for hooks as long as any model is patched."""
    model = copy.deepcopy(colpali)
    with config.patch(skip_nnmodule_hook_guards=True):
        handle = tokenprune.patch_retrieval(model)
        its_handle = copy.deepcopy(handle)
        handle.remove()
        assert its_handle.installed
        assert not config.skip_nnmodule_hook_guards
        its_handle.remove()


def test_gradients_flow_through_the_merging(colpali: Any) -> None:
    inputs = colpali_pages(torch.randn(1, 3, SIDE * PATCH, SIDE * PATCH, generator=torch.Generator().manual_seed(0)))
    model = copy.deepcopy(colpali)
    with tokenprune.patch_retrieval(model, 9):
        model(**inputs).embeddings[:, 3:].sum().backward()
    assert float(model.embedding_proj_layer.weight.grad.abs().max()) > 0


def pages(seed: int) -> Tensor:
    """Return 24 pages of coloured blocks on a common background, with noise on top."""
    layout = torch.Generator().manual_seed(7)
    blocks = torch.randn(24, 3, 4, 4, generator=layout) * (torch.rand(24, 1, 4, 4, generator=layout) < 0.6)
    pixels = 2 * blocks.repeat_interleave(SIDE * PATCH // 4, 2).repeat_interleave(SIDE * PATCH // 4, 3)
    return pixels + 0.1 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))


def recall(found: Tensor, stored: Tensor) -> float:
    """Return the share of pages that score highest for their noisy copy as query, by the processor's own scores."""
    scores = ColPaliProcessor.score_retrieval(None, list(found), list(stored))  # type: ignore[arg-type]
    return float((scores.argmax(1) == torch.arange(len(found))).float().mean())


def test_merged_pages_are_found(colpali: Any) -> None:
    """More often than pages with as many random embeddings and, over all factors, than with means of neighbours; at the
    lower factors as often as with all embeddings."""
    found, whole = (embedded(colpali, colpali_pages(pages(seed)))[:, :64] for seed in (1, 2))
    full, light, pooled = recall(found, whole), {}, {}
    generator = torch.Generator().manual_seed(0)
    for factor in FACTORS:
        n = 64 // factor
        with tokenprune.patch_retrieval(colpali, factor):
            light[factor] = recall(found, embedded(colpali, colpali_pages(pages(2)))[:, 3:])
        means = torch.stack([part.mean(1) for part in whole.tensor_split(n, 1)], 1)
        pooled[factor] = recall(found, normalize(means, dim=-1))
        assert light[factor] > recall(found, whole[:, torch.randperm(64, generator=generator)[:n]])
    assert full > 0.9
    assert min(light[4], light[9]) >= full - 0.05
    assert sum(light.values()) > sum(pooled.values())


# Errors.


@pytest.mark.parametrize("factor", [0, -4, 2.5, True, "9"])
def test_invalid_factors(colpali: Any, unchecked: None, factor: Any) -> None:
    with pytest.raises(SettingError, match="Write an integer of at least 1, such as factor=9"):
        tokenprune.patch_retrieval(colpali, factor)
    assert not colpali._forward_hooks


def test_a_factor_above_the_patches(colpali: Any) -> None:
    inputs = colpali_pages(torch.zeros(1, 3, SIDE * PATCH, SIDE * PATCH))
    with tokenprune.patch_retrieval(colpali, 65), pytest.raises(PruningError, match="for a page of 64 patch"):
        embedded(colpali, inputs)


def test_replicas_of_data_parallel(colpali: Any) -> None:
    inputs = colpali_pages(torch.zeros(1, 3, SIDE * PATCH, SIDE * PATCH))
    with tokenprune.patch_retrieval(colpali), pytest.raises(UnsupportedError, match="DataParallel copies the model"):
        embedded(replica_of(colpali), inputs)


@pytest.mark.usefixtures("unchecked")
def test_other_models_are_refused() -> None:
    for model in (tiny_llava(), "colpali"):
        with pytest.raises(
            UnsupportedError, match="Supported: ColPaliForRetrieval, ColQwen2ForRetrieval, ColModernVBert"
        ):
            tokenprune.patch_retrieval(model)  # type: ignore[arg-type]


def test_scipy_is_required(colpali: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UnsupportedError, match=r'pip install "tokenprune-vlm\[retrieval\]", or in a clone'):
        tokenprune.patch_retrieval(colpali)


def test_embeddings_instead_of_tokens_are_refused(colqwen: Any) -> None:
    embeds = colqwen.get_input_embeddings()(torch.arange(VOCAB - 6)[None, :5])
    with tokenprune.patch_retrieval(colqwen), pytest.raises(PruningError, match="Pass them instead of inputs_embeds"):
        colqwen(inputs_embeds=embeds)


def test_embeddings_that_are_not_finite() -> None:
    with pytest.raises(PruningError, match="NaN or infinite"):
        merge_clusters(torch.full((8, 4), torch.nan), 2)


# The text that is kept.


def test_text_behind_the_patches(colqwen: Any) -> None:
    """From 5, START, patches, END, 8, 9, the authors' code keeps 8: what follows the image's end, except the last
    token."""
    inputs = colqwen_pages([(8, 8), (4, 8)])
    whole = embedded(colqwen, inputs)
    kept = {}
    for text in ("all", "after", "none"):
        with tokenprune.patch_retrieval(colqwen, 4, text=text):
            kept[text] = embedded(colqwen, inputs)
    assert kept["all"].shape[1] - kept["none"].shape[1] == 5
    assert torch.equal(kept["all"][0, 5:], kept["none"][0])
    assert torch.equal(kept["after"][0, 0], whole[0, -2])
    assert torch.equal(kept["after"][0, 1:], kept["none"][0])
    assert torch.equal(kept["after"][1, :1], whole[1, -2:-1])


@pytest.mark.usefixtures("unchecked")
def test_text_that_cannot_be(colqwen: Any) -> None:
    with pytest.raises(SettingError, match="unknown text 'before'"):
        tokenprune.patch_retrieval(colqwen, text="before")  # type: ignore[arg-type]
