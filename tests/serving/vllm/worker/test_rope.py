"""Rotary embeddings whose tables vLLM does not lengthen."""

# pyright: reportMissingImports=false

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.served.engine import check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.marks import INTERN_IMAGE, MISTRAL_IMAGE
from helpers.served.reference import Request
from helpers.served.stored import save
from torch import nn

from tokenprune import FoPru
from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.settings import Settings

pytestmark = [needs_vllm, pytest.mark.slow]
#: As in Ministral 3, whose table ends at 64 * 16.
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 16.0, "original_max_position_embeddings": 64}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}


def test_yarn(tmp_path: Path) -> None:
    """Within the table, position IDs far beyond the original length work as in transformers; beyond it, none do."""
    save("mistral3", tmp_path, rope_parameters=YARN)
    requests = [Request(f"w1 {MISTRAL_IMAGE} w2 {MISTRAL_IMAGE} w3", ((1, 196, 196), (2, 196, 160)))]
    answers = expected(tmp_path, FOPRU, requests)
    options: dict[str, Any] = {"max_model_len": 256}
    with engine(tmp_path, "TokenPruneMistral3", FOPRU, **options) as llm:
        (output,) = served(llm, requests)
    check_equal(output, answers[0])
    assert difference(output, expected(tmp_path, FOPRU, requests, "compact")[0]) > 1e-2
    with (
        pytest.raises(
            UnsupportedError,
            match=r"ends at 1024 position IDs, and original ones may run to 1028\. Lower .* to 256, or",
        ),
        engine(tmp_path, "TokenPruneMistral3", FOPRU, max_model_len=257),
    ):
        pass


def test_dynamic(tmp_path: Path) -> None:
    """As in InternVL 2.5 and 3: as long as position IDs stay within the table, frequencies are the original ones."""
    save("internvl", tmp_path, max_position_embeddings=512, rope_parameters=DYNAMIC)
    requests = [Request(f"w1 {INTERN_IMAGE} w2 {INTERN_IMAGE} w3", ((1, 140, 112), (2, 200, 90)))]
    answers = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, "TokenPruneInternVL", FOPRU, max_model_len=128) as llm:
        (output,) = served(llm, requests)
    check_equal(output, answers[0])
    assert difference(output, expected(tmp_path, FOPRU, requests, "compact")[0]) > 1e-2
    with (
        pytest.raises(
            UnsupportedError, match=r"ends at 512 position IDs, and original ones may run to 516\. Lower .* to 128, or"
        ),
        engine(tmp_path, "TokenPruneInternVL", FOPRU, max_model_len=129),
    ):
        pass


@pytest.mark.parametrize(
    ("position_ids", "said"),
    [
        (
            "original",
            r'original ones may run to 4000\. Lower --max-model-len to 128, or write "position_ids": "compact"',
        ),
        ("compact", r"compact ones may run to 1000\. Lower --max-model-len to 512\.$"),
    ],
)
def test_what_to_do_beyond_the_table(position_ids: Any, said: str) -> None:
    from vllm.model_executor.layers.rotary_embedding.dynamic_ntk_scaling_rope import DynamicNTKScalingRotaryEmbedding

    from tokenprune.serving.vllm.worker.rope import lengthen

    module: Any = DynamicNTKScalingRotaryEmbedding.__new__(DynamicNTKScalingRotaryEmbedding)
    nn.Module.__init__(module)
    module.cos_sin_cache = torch.zeros(512, 1)
    with pytest.raises(UnsupportedError, match=rf"ends at 512 position IDs, and {said}"):
        lengthen(module, Settings(FoPru(keep_ratio=0.25), position_ids), 1000)


def test_lings_table() -> None:
    """Its language model needs a GPU: here, only its rotary embedding is run."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding.bailing_mrope import BailingMRotaryEmbedding

    from tokenprune.serving.vllm.worker.rope import lengthen

    with set_current_vllm_config(VllmConfig()):
        short, long = (BailingMRotaryEmbedding(64, 64, n, 1e4, False, torch.float32, [12, 10, 10]) for n in (64, 1000))
    ids = torch.tensor([[3, 900, 3999], [7, 901, 3999], [2, 905, 3999]])
    lengthen(nn.ModuleList([short]), Settings(FoPru(keep_ratio=0.25)), 1000)
    query, key = torch.randn(3, 128), torch.randn(3, 64)
    for ours, theirs in zip(*(one.forward_native(ids, query, key) for one in (short, long)), strict=True):
        assert torch.equal(ours, theirs)
