"""A few random kills of `eval` and `optimize`; the full measurement makes a hundred."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.files.evals import saved
from helpers.files.search import deep_llava, write_scenes

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_kills(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 4)
    place = ["--model", saved(deep_llava(), tmp_path / "model"), "--data", str(tmp_path / "scenes")]
    command = [sys.executable, "-m", "tokenprune.evals.dev.experiments.kills", *place, "--eval", "3", "--optimize", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--output", str(tmp_path / "kills.json")], check=True, cwd=ROOT, env=environment)
    for found in json.loads((tmp_path / "kills.json").read_text()).values():
        if isinstance(found, dict):
            assert found["killed"] >= 3
            assert found["undisturbed runs are equal"]
            assert found["runs that differ"] == 0
