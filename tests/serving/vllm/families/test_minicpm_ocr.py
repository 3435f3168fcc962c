"""MiniCPM-OCR: an image, and slices of one, whose sizes depend on their pixels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.served.engine import check_equal, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU
from helpers.served.marks import MINICPM_IMAGE
from helpers.served.reference import Request
from helpers.served.stored import save

from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.releases import reason_of_lack

NAME = "TokenPruneMiniCPMOcr"
LACK = reason_of_lack(ARCHITECTURES[NAME])
pytestmark = [needs_vllm, pytest.mark.slow, pytest.mark.skipif(LACK is not None, reason=str(LACK))]
#: (width, height). With the smaller one's own size, and slices of 80 and 81 pixels, rounded to 64 and 96.
SMALL, UNEQUAL = (1, 70, 60), (2, 161, 130)


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
    with engine(tmp_path, NAME, FOPRU) as llm:
        outputs = [served(llm, [request])[0] for request in requests]
        visual = llm.get_tokenizer().convert_tokens_to_ids(i)
    n_visual = [sum(one == visual for one in output.prompt_token_ids) for output in outputs[:2]]
    assert [len(answer.kept) for answer in answers] == [1, 3, 4]
    assert n_visual == [sum(map(len, answer.kept)) for answer in answers[:2]]
    assert len(answers[1].kept[1]) != len(answers[1].kept[2])
    for output, answer in zip(outputs, answers, strict=True):
        check_equal(output, answer)
