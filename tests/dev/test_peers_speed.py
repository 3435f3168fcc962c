"""The speed comparison with published packages: the same weights in all environments, and the table.

The packages themselves are not needed here: evals/results/peers.md says how to install them.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

# pyright: reportMissingImports=false
# The scripts in evals/dev/peers/speed are not a package.

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "evals" / "dev" / "peers" / "speed"
ECHO = """
import sys
sys.path.insert(0, {peers!r})
from contextlib import nullcontext
import torch
from serve import serve
cache = [(torch.zeros(2, 3), torch.zeros(2, 3))]
def load():
    print("what a package prints", flush=True)
    return lambda batch: {{"one": lambda: nullcontext(lambda: (torch.full((1, 4), float(batch)), cache))}}
serve(load, [])
"""


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


def test_weights_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shape

    small(monkeypatch).make(tmp_path)
    names = {"language_model.": "a.", "multi_modal_projector.": "b.", "vision_tower.": "c."}
    found = shape.weights(tmp_path, names)
    assert {name.split(".")[0] for name in found} == {"a", "b", "c"}
    with pytest.raises(StopIteration):
        shape.weights(tmp_path, {"language_model.": "a."})


def test_a_process_answers_lines_and_keeps_what_is_printed_apart() -> None:
    from run import Server

    with Server("some", [sys.executable, "-c", ECHO.format(peers=str(PEERS))]) as server:
        assert server.prefills == ["one"]
        assert server.versions["torch"] == version("torch")
        answer = server.ask("one", 3)
        assert answer["kv_cache_bytes"] == 48
        assert answer["logits"] == [3.0] * 4
        with pytest.raises(RuntimeError, match="ended with exit code 1"):
            server.ask("another")


def test_rounds_go_over_all_processes(tmp_path: Path) -> None:
    import run

    asked = []

    class Fake:
        def __init__(self, package: str) -> None:
            self.package, self.prefills, self.versions = package, ["unpruned", "x"], {"torch": "2"}

        def ask(self, prefill: str, batch: int = 1) -> dict[str, Any]:
            asked.append((self.package, prefill, batch))
            return {"seconds": 1.0, "kv_cache_bytes": 8, "logits": [3.0, 4.0 + (self.package == "kvpress")]}

    path = tmp_path / "speed.json"
    run.measure([Fake("tokenprune"), Fake("kvpress")], 2, path, {"batch": 4})  # pyright: ignore[reportArgumentType]
    measured = json.loads(path.read_text())
    warm, first, second = asked[:4], asked[4:8], asked[8:]
    assert [batch for *_, batch in asked] == [1] * 4 + [4] * 8
    assert second == first[::-1] == [(package, prefill, 4) for package, prefill, _ in warm]
    assert measured["logits_difference"]["tokenprune: x"] == 0
    assert measured["logits_difference"]["kvpress: unpruned"] == pytest.approx(0.2)
    assert [len(one["seconds"]) for one in measured["rounds"]] == [4, 4]
