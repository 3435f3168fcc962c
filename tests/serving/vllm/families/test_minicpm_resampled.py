"""All versions of MiniCPM-V and MiniCPM-o with a resampler, and what goes with images in their prompts."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.served.engine import TOLERANCE, check_equal, engine, expected, needs_vllm, served
from helpers.served.families import CODE
from helpers.served.family import FOPRU
from helpers.served.minicpmv import (
    MINICPMO_SOUND,
    MINICPMV_IMAGE,
    MINICPMV_VISUAL,
    QUERIES,
    MiniCPMVImageProcessor,
)
from helpers.served.reference import Request, draw
from helpers.served.stored import save

from tokenprune.errors import SettingError, UnsupportedError

pytestmark = needs_vllm
A = (1, 140, 112)
i = MINICPMV_IMAGE


@pytest.mark.slow
def test_features_instead_of_images(tmp_path: Path) -> None:
    """They give the same answers as the images that they are of."""
    from vllm import SamplingParams

    save("minicpmv2_6", tmp_path)
    settings, request = {"strategy": "divprune", "keep_ratio": 0.25}, Request(f"w1 {i} w2", (A,))
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
    text, sounds = f"w1 {i} w2 {MINICPMO_SOUND} w3", ((4, 1.5),)
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
