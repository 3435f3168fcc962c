"""An embedding model's images are pruned like a generating model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.served.engine import TOLERANCE, engine, needs_vllm, reference_process
from helpers.served.family import FOPRU
from helpers.served.marks import QWEN_IMAGE
from helpers.served.reference import Request, draw, embeddings
from helpers.served.stored import save

pytestmark = [needs_vllm, pytest.mark.slow]


def test_embeddings(tmp_path: Path) -> None:
    save("qwen3_vl", tmp_path)
    text, image = f"w1 w2 {QWEN_IMAGE} w3", (1, 140, 112)
    requests = [Request(text, (image,)), Request(text, (image,), keep_ratio=1.0)]
    settings = {"keep_ratio": FOPRU["keep_ratio"]}
    wanted = reference_process().submit(embeddings, tmp_path, "fopru", settings, requests).result()
    prompt: dict[str, Any] = {"prompt": text, "multi_modal_data": {"image": [draw(*image)]}}
    with engine(tmp_path, "TokenPruneQwen3VL", FOPRU, runner="pooling") as llm:
        outputs = llm.embed([prompt, {**prompt, "mm_processor_kwargs": {"keep_ratio": 1.0}}], use_tqdm=False)
    pruned, unpruned = (torch.tensor(output.outputs.embedding) for output in outputs)
    torch.testing.assert_close(pruned, torch.tensor(wanted[0]), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(unpruned, torch.tensor(wanted[1]), rtol=0, atol=TOLERANCE)
    assert (pruned - unpruned).abs().max() > 100 * TOLERANCE
