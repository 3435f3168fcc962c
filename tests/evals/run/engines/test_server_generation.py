"""What a server says of itself: the generation config that it answers with, or that it has failed to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.files.evals import brief, saved, tiny_processor, write_vqav2
from helpers.simulated.openai_server import Answering, serving
from helpers.tiny import tiny_llava

from tokenprune.errors import SettingError
from tokenprune.evals import evaluate
from tokenprune.evals.run.engines.engine import EngineError
from tokenprune.evals.run.engines.server import Server
from tokenprune.evals.storage.run_folder import RunFolder

SETTINGS = {"strategy": "fopru", "keep_ratio": 0.25}


def test_a_server_with_another_generation_config_does_not_resume_a_run(tmp_path: Path) -> None:
    write_vqav2(tmp_path / "data", n=2)
    model = saved(tiny_llava(), tmp_path / "model")
    answering = Answering(brief(tiny_llava()), tiny_processor(), SETTINGS)
    named: dict[str, Any] = {"data": tmp_path / "data", "output": tmp_path / "run", "baselines": []}
    with serving(answering) as url:
        evaluate(model, engine=url, **named)
        answering.generation = {"eos_token_id": 2, "temperature": 0.7, "max_tokens": 99}  # requests have their own
        evaluate(model, engine=url, **named)
        assert RunFolder(tmp_path / "run").record["identity"]["model"]["generation"] == {"eos_token_id": 2}
        answering.generation = {"eos_token_id": 2, "repetition_penalty": 1.05}
        with pytest.raises(SettingError, match=r"generation\.repetition_penalty=None and not .*=1\.05"):
            evaluate(model, engine=url, **named)


def test_a_server_that_does_not_report_its_generation_config(tmp_path: Path) -> None:
    write_vqav2(tmp_path / "data", n=2)
    model = saved(tiny_llava(), tmp_path / "model")
    answering = Answering(brief(tiny_llava()), tiny_processor(), SETTINGS, generation=None)
    with serving(answering) as url:
        evaluate(model, data=tmp_path / "data", output=tmp_path / "run", baselines=[], engine=url)
    assert "generation" not in RunFolder(tmp_path / "run").record["identity"]["model"]


def test_a_server_that_fails_to_say_what_it_prunes_with_is_not_a_plain_one() -> None:
    class Failing(Answering):
        def get(self, path: str) -> tuple[int, Any]:
            return (500, {"error": {"message": "broken"}}) if path == "/tokenprune" else super().get(path)

    refusal = pytest.raises(EngineError, match="/tokenprune: HTTP 500: broken")
    with serving(Failing(None, None, SETTINGS)) as url, refusal:
        Server(url, "model")
