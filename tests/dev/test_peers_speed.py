"""The speed comparison with published packages: what our prefills leave, and the processes that are asked.

The packages themselves are not needed here: evals/results/peers.md says how to install them.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

# pyright: reportMissingImports=false
# The scripts in evals/dev/peers/speed are not a package.

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "evals" / "dev" / "peers" / "speed"


@pytest.fixture(autouse=True)
def peers_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PEERS))


def small(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A narrow model of the comparison."""
    import newest_side

    narrow = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    monkeypatch.setattr(newest_side, "VISION", newest_side.VISION | narrow)
    monkeypatch.setattr(newest_side, "TEXT", newest_side.TEXT | narrow | {"num_key_value_heads": 2})
    return newest_side


@pytest.mark.parametrize("batch", [1, 2])
def test_every_prefill_of_ours_leaves_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    newest = small(monkeypatch)
    torch.manual_seed(0)  # transformers draws the class embedding, and with some seeds two scores are almost equal
    newest.make(tmp_path)
    model = newest.saved(tmp_path)
    from shape import AFTER, BEFORE, KEEP, N_VISUAL, kv_bytes

    n_text, per_token = len(BEFORE) + len(AFTER), batch * 24 * 2 * 32 * 4
    logits, lengths = {}, {}
    for name, prefill in newest.Prefills(model, batch).named().items():
        with torch.inference_mode(), prefill() as call:
            logits[name], cache = call()
        lengths[name] = kv_bytes(cache) / per_token - n_text
    assert lengths.pop("unpruned") == lengths.pop("unpruned, output_attentions") == N_VISUAL
    assert lengths.pop("FastV") == pytest.approx((2 * N_VISUAL + 22 * KEEP) / 24)
    assert set(lengths.values()) == {KEEP}
    torch.testing.assert_close(logits["unpruned"], logits["unpruned, output_attentions"], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits["FoPru"], logits["FoPru, output_attentions"], atol=1e-4, rtol=0)
    assert not torch.allclose(logits["FoPru"], logits["unpruned"], atol=1e-2)
