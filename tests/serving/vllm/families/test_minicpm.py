"""MiniCPM-V and MiniCPM-OCR: where images and their slices are, and what goes with images in their prompts."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.served.engine import TOLERANCE, check_equal, engine, expected, needs_vllm, served
from helpers.served.families import CODE
from helpers.served.family import FOPRU
from helpers.served.marks import MINICPM_IMAGE
from helpers.served.minicpmv import MINICPMO_SOUND, MINICPMV_IMAGE, MINICPMV_VISUAL, QUERIES, MiniCPMVImageProcessor
from helpers.served.reference import Request, draw
from helpers.served.stored import save

from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.releases import reason_of_lack
from tokenprune.tokens import Layout

pytestmark = needs_vllm
#: Which tokens of a placeholder are visual: an overview and rows of slices, each after a marker.
OVERVIEW, SLICE, ROW_END = "-vvvv-", "-vv-", "n"


@pytest.mark.parametrize(
    ("placeholder", "columns"),
    [
        (OVERVIEW, 1),
        (OVERVIEW + SLICE, 1),
        (OVERVIEW + SLICE * 3, 3),
        (OVERVIEW + ROW_END.join([SLICE] * 3), 1),
        (OVERVIEW + ROW_END.join([SLICE * 3] * 2), 3),
    ],
)
def test_how_many_slices_are_side_by_side(placeholder: str, columns: int) -> None:
    from tokenprune.serving.vllm.models.minicpm import n_columns

    assert n_columns(torch.tensor([token == "v" for token in placeholder])) == columns


def test_an_overview_is_stretched_over_its_slices() -> None:
    from tokenprune.serving.vllm.models.minicpm import canvas_offsets

    overview, slice_ = Layout.raster((1, 2, 2)), Layout.raster((1, 2, 3))
    stretched, *slices = canvas_offsets([overview, *[slice_] * 4], 2)
    assert stretched.tolist() == [[0, 0, 0], [0, 0, 5], [0, 3, 0], [0, 3, 5]]
    own = [[0, row, column] for row in range(2) for column in range(3)]
    assert [one.tolist() for one in slices] == [own] * 4
    (alone,) = canvas_offsets([overview], 1)
    assert alone.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]


@pytest.mark.slow
def test_rows_of_slices(tmp_path: Path) -> None:
    """Two rows of two slices give the same answers as in transformers, alone and after another image."""
    save("minicpmv4_7", tmp_path)
    i, square = MINICPM_IMAGE, (1, 224, 224)
    requests = [Request(f"w1 {i} w2", (square,)), Request(f"w1 {i} w2 {i} w3", ((2, 140, 112), square))]
    answers = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, "TokenPruneMiniCPMV4_7", FOPRU) as llm:
        outputs, marker = served(llm, requests), llm.get_tokenizer().convert_tokens_to_ids("<slice>")
    assert outputs[0].prompt_token_ids.count(marker) == 4
    for output, answer in zip(outputs, answers, strict=True):
        check_equal(output, answer)


OCR = "TokenPruneMiniCPMOcr"
LACK = reason_of_lack(ARCHITECTURES[OCR])
#: (width, height). With the smaller one's own size, and slices of 80 and 81 pixels, rounded to 64 and 96.
SMALL, UNEQUAL = (1, 70, 60), (2, 161, 130)


@pytest.mark.slow
@pytest.mark.skipif(LACK is not None, reason=str(LACK))
def test_slices_of_different_sizes(tmp_path: Path) -> None:
    save("minicpm_ocr", tmp_path)
    file = tmp_path / "processor_config.json"
    written = json.loads(file.read_text())
    written["image_processor"]["small_image_upsize"] = "adaptive"
    file.write_text(json.dumps(written))
    i = MINICPM_IMAGE
    requests = [
        Request(f"w1 {i} w2", (SMALL,)),
        Request(f"w1 {i} w2", (UNEQUAL,)),
        Request(f"w1 {i} w2 {i} w3", (UNEQUAL, SMALL), keep_ratio=0.5),
    ]
    answers = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, OCR, FOPRU) as llm:
        outputs = [served(llm, [request])[0] for request in requests]
        visual = llm.get_tokenizer().convert_tokens_to_ids(i)
    n_visual = [sum(one == visual for one in output.prompt_token_ids) for output in outputs[:2]]
    assert [len(answer.kept) for answer in answers] == [1, 3, 4]
    assert n_visual == [sum(map(len, answer.kept)) for answer in answers[:2]]
    assert len(answers[1].kept[1]) != len(answers[1].kept[2])
    for output, answer in zip(outputs, answers, strict=True):
        check_equal(output, answer)


A = (1, 140, 112)
#: An image of the versions with a resampler.
V = MINICPMV_IMAGE


@pytest.mark.slow
def test_features_instead_of_images(tmp_path: Path) -> None:
    """They give the same answers as the images that they are of."""
    from vllm import SamplingParams

    save("minicpmv2_6", tmp_path)
    settings, request = {"strategy": "divprune", "keep_ratio": 0.25}, Request(f"w1 {V} w2", (A,))
    (answer,) = expected(tmp_path, settings, [request])
    prepared = MiniCPMVImageProcessor().preprocess([[draw(*A)]])
    inputs = {"pixel_values": prepared["pixel_values"][0], "tgt_sizes": prepared["tgt_sizes"][0]}
    sampling = SamplingParams(temperature=0, max_tokens=10, logprobs=-1, ignore_eos=True)
    with engine(tmp_path, "TokenPruneMiniCPMV", settings, enable_mm_embeds=True, **CODE) as llm:
        (features,) = llm.apply_model(lambda model: model.get_vision_hidden_states(inputs).detach().flatten(0, 1))
        given = {"image_embeds": [features], "image_sizes": torch.tensor([A[1:]])}
        prompt = {"prompt": request.text, "multi_modal_data": {"image": given}}
        (output,) = llm.generate([prompt], sampling, use_tqdm=False)
        check_equal(output, answer)
        given["image_embeds"] = [features[:-1]]
        said = f"sent as {len(features) - 1} visual tokens, but this model's images have {len(features)} at its size"
        with pytest.raises(SettingError, match=said):
            llm.generate([prompt], sampling, use_tqdm=False)


@pytest.mark.slow
def test_sound_beside_images(tmp_path: Path) -> None:
    """It is not pruned."""
    save("minicpmo4_5", tmp_path)
    limits = {"limit_mm_per_prompt": {"image": 1, "video": 0, "audio": 1}, **CODE}
    text, sounds = f"w1 {V} w2 {MINICPMO_SOUND} w3", ((4, 1.5),)
    requests = [Request(f"w1 {MINICPMO_SOUND} w2", sounds=sounds), Request(text, (A,), sounds=sounds)]
    pruned, unpruned = requests[1], Request(text, (A,), keep_ratio=1.0, sounds=sounds)
    with engine(tmp_path, "TokenPruneMiniCPMO", FOPRU, **limits) as llm:
        ours = served(llm, [requests[0], unpruned, pruned])
        visual = llm.get_tokenizer().convert_tokens_to_ids(MINICPMV_VISUAL)
    with engine(tmp_path, "", {}, **limits, hf_overrides={}) as llm:
        theirs = served(llm, requests)
    for one, other in zip(ours, theirs, strict=False):
        assert one.outputs[0].token_ids == other.outputs[0].token_ids
        first, native = (output.outputs[0].logprobs[0] for output in (one, other))
        assert max(abs(first[token].logprob - native[token].logprob) for token in first) < TOLERANCE
    n_sound, n_all, n_left = (output.prompt_token_ids.count(visual) for output in ours)
    assert 0 < n_sound < n_left
    assert n_left - n_sound == (n_all - n_sound) // 4


def test_options_that_vllm_does_not_write_into_the_prompt() -> None:
    """Else an engine would get more features of an image than there are places for, and end."""
    from tokenprune.serving.vllm.models.minicpm_resampled import ResampledProcessor

    config = SimpleNamespace(query_num=QUERIES)
    asked: Any = SimpleNamespace(info=SimpleNamespace(get_hf_config=lambda: config))
    grids = {"tgt_sizes": torch.ones(3, 2), "video_tgt_sizes": torch.ones(4, 2)}
    item = {name: SimpleNamespace(data=one) for name, one in grids.items()}
    assert ResampledProcessor.parts(asked, "image", item, 3 * QUERIES) == (QUERIES,) * 3
    assert ResampledProcessor.parts(asked, "video", item, 4 * QUERIES) == (QUERIES,) * 4
    for modality, n_parts in (("image", 3), ("video", 4)):
        with pytest.raises(SettingError, match=f"one {modality} is cut into {n_parts} parts, but .+ for 2"):
            ResampledProcessor.parts(asked, modality, item, 2 * QUERIES)


def test_unknown_versions() -> None:
    from tokenprune.serving.vllm.models.minicpm_resampled import PrunedMiniCPMO, PrunedMiniCPMV

    for kind, version in ((PrunedMiniCPMV, 3.0), (PrunedMiniCPMO, "4.0")):
        config: Any = SimpleNamespace(model_config=SimpleNamespace(hf_config=SimpleNamespace(version=version)))
        with pytest.raises(UnsupportedError, match=rf"version='{version}' in config\.json: of this family, only "):
            kind(vllm_config=config)
