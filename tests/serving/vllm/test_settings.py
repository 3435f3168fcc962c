"""Settings of a pruned engine, read without vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from tokenprune import FoPru
from tokenprune.errors import SettingError
from tokenprune.serving.vllm.settings import Settings, split_request


def test_strategy_and_own_settings() -> None:
    settings = Settings.read({"strategy": "fopru:layer=-2", "keep_ratio": 0.5, "position_ids": "compact"})
    assert settings == Settings(FoPru(keep_ratio=0.5, layer=-2), "compact")
    assert Settings.read({"strategy": "fopru"}).strategy == FoPru(keep_ratio=0.25)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (None, "expected settings with a strategy, found None. Write"),
        ({"keep_ratio": 0.5}, "expected settings with a strategy"),
        ({"strategy": "fopro"}, "Did you mean 'fopru'"),
        ({"strategy": "fopru", "keep_rate": 0.5}, "Did you mean 'keep_ratio'"),
        ({"strategy": "fopru", "positions": "compact"}, "Did you mean 'position_ids'"),
        ({"strategy": "fopru", "keep_ratio": 0}, "keep_ratio=0 is not a fraction"),
        ({"strategy": "fopru", "keep_ratio": "half"}, "keep_ratio='half' is not of type"),
        ({"strategy": "fopru", "position_ids": "origin"}, "position_ids 'origin'"),
        ({"strategy": "fopru", "record": 1}, "record=1 is not a path"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_wrong_is_said(written: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Settings.read(written)


@pytest.mark.usefixtures("unchecked")
def test_keep_ratio_of_a_request() -> None:
    settings = Settings(FoPru(keep=10))
    assert settings.strategy_at(None) == FoPru(keep=10)
    assert settings.strategy_at(0.5) == FoPru(keep_ratio=0.5)
    assert settings.strategy_at(1) is None
    assert [settings.budget(36, ratio) for ratio in (None, 0.5, 1.0)] == [10, 18, 36]
    for wrong in (0, 1.5, -1, "0.5", True):
        with pytest.raises(SettingError, match="is not a fraction"):
            settings.strategy_at(wrong)  # pyright: ignore[reportArgumentType]


def test_an_engine_that_keeps_all_prunes_nothing() -> None:
    settings = Settings(FoPru(keep_ratio=1.0))
    assert settings.strategy_at(None) is None
    assert settings.strategy_at(0.5) == FoPru(keep_ratio=0.5)


def test_digest_tells_engines_apart() -> None:
    engines = [
        Settings(FoPru(keep_ratio=0.25)),
        Settings(FoPru(keep_ratio=0.5)),
        Settings(FoPru(keep_ratio=0.25, layer=-2)),
        Settings(FoPru(keep_ratio=0.25), "compact"),
    ]
    assert len({engine.digest for engine in engines}) == 4
    assert Settings(FoPru(keep_ratio=0.25), record="a.jsonl").digest == engines[0].digest


def test_position_ids_that_an_engine_provides() -> None:
    assert Settings(FoPru(keep_ratio=0.1)).n_positions(100) == pytest.approx(1000, abs=1)
    assert Settings(FoPru(keep_ratio=0.9)).n_positions(100) == 400
    assert Settings(FoPru(keep=5)).n_positions(100) == 1600
    assert Settings(FoPru(keep=5), "compact").n_positions(100) == 100


def test_request_is_split() -> None:
    assert split_request({"keep_ratio": 0.5, "max_pixels": 9}) == (0.5, {"max_pixels": 9})
    assert split_request({"max_pixels": 9}) == (None, {"max_pixels": 9})
