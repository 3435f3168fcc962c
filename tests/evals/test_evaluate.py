"""`from tokenprune.evals import evaluate`: the evals as a function."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.files.evals import tiny_processor, write_vqav2
from helpers.tiny import tiny_llava

import tokenprune
from tokenprune.evals import evaluate

LIGHT = """
import sys
import tokenprune.evals
heavy = {"torch", "transformers", "typer", "rich", "scipy", "pyarrow", "PIL"} & set(sys.modules)
assert not heavy, heavy
assert "evaluate" in tokenprune.evals.__all__
"""


def test_a_loaded_model_and_a_strategy_object(tmp_path: Path) -> None:
    write_vqav2(tmp_path / "scenes")
    results = evaluate(
        (tiny_llava(), tiny_processor()),
        output=tmp_path / "run",
        data=tmp_path / "scenes",
        strategies=[tokenprune.FoPru(keep_ratio=0.25)],
        keep_ratios=[0.25],
        position_ids=["original"],
        baselines=["unpruned"],
        limit=2,
    )
    assert [(result.strategy, result.keep_ratio, result.n) for result in results] == [
        ("unpruned", 1.0, 2),
        ("FoPru", 0.25, 2),
    ]


def test_nothing_to_measure(tmp_path: Path) -> None:
    write_vqav2(tmp_path / "scenes")
    with pytest.raises(tokenprune.SettingError, match="nothing to measure"):
        evaluate(
            (tiny_llava(), tiny_processor()),
            output=tmp_path / "run",
            data=tmp_path / "scenes",
            strategies=[],
            baselines=[],
        )


def test_importing_the_evals_loads_none_of_their_libraries() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_the_root_of_evals_shows_subsystems() -> None:
    root = Path(tokenprune.__file__).parent / "evals"
    assert {path.name for path in root.glob("*.py")} == {"__init__.py", "__main__.py"}
