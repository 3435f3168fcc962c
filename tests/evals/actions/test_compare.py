"""The command `tokenprune actions`: what it measures, prints and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.commands import command
from helpers.families.base import RECENT
from helpers.files.policies import WIDTH, saved_policy, write_lerobot, write_observations
from helpers.tiny import tiny_llava

import tokenprune
from tokenprune import EfficientVLA, Random
from tokenprune.evals.actions.compare import compare
from tokenprune.evals.actions.policy import actions_of, load_policy, prepare
from tokenprune.evals.actions.recordings import load_observations
from tokenprune.evals.run.setups import Pruned

pytestmark = pytest.mark.skipif(not RECENT, reason="PI0's processor of an older transformers forgets its settings")


@pytest.fixture(scope="module", params=["PI0", "PI05"])
def kind(request: pytest.FixtureRequest) -> str:
    if not hasattr(transformers, f"{request.param}ForConditionalGeneration"):
        pytest.skip(f"transformers {transformers.__version__} lacks {request.param}")
    return request.param


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_policy(tmp_path_factory.mktemp("policy"), kind)


def test_errors_are_those_of_the_same_noise(folder: str, tmp_path: Path) -> None:
    policy, processor = load_policy(folder)
    observations = load_observations(write_observations(tmp_path))
    strategy = Random(keep_ratio=0.25)
    whole = Pruned(label="all", keep_ratio=1.0, strategy=Random(keep_ratio=1.0))
    part = Pruned(label="a quarter", keep_ratio=0.25, strategy=strategy)
    same, pruned = compare(policy, processor, observations, [whole, part], seed=3)
    assert (same.mean, same.worst, same.kv_read) == (0, 0, 1)
    assert same.interval == (0, 0)
    differences = []
    for number, observation in enumerate(observations):
        inputs = prepare(policy, processor, observation)
        unpruned = actions_of(policy, inputs, 3 + number)
        with tokenprune.patch(policy, strategy):
            differences.append((actions_of(policy, inputs, 3 + number) - unpruned)[:, :WIDTH].abs())
    error = torch.stack(differences)
    assert pruned.mean == pytest.approx(float(error.mean()), rel=1e-5)
    assert pruned.first == pytest.approx(float(error[:, 0].mean()), rel=1e-5)
    assert pruned.worst == pytest.approx(float(error.max()), rel=1e-5)
    assert pruned.interval is not None
    assert pruned.interval[0] <= pruned.mean <= pruned.interval[1]
    assert (pruned.visual, pruned.kept, pruned.n) == (512, 128, 3)
    assert 0.25 < pruned.kv_read < 0.3
    assert pruned.other_noise > pruned.mean > 0


def test_tokens_that_are_dropped_inside_are_counted(folder: str, tmp_path: Path) -> None:
    policy, processor = load_policy(folder)
    observations = load_observations(write_observations(tmp_path, n=1))
    setup = Pruned(label="", keep_ratio=0.5, strategy=EfficientVLA(keep_ratio=0.5, layer=1, reuse=2))
    (found,) = compare(policy, processor, observations, [setup])
    assert (found.visual, found.kept) == (512, 256)
    assert found.kv_read == pytest.approx(0.375, abs=0.01)  # 1/2 of the steps, 1/2 of the tokens in 1/2 of the layers
    assert found.interval is None  # a single episode


def test_the_first_call_is_not_timed(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It allocates and, on a GPU, loads kernels: of the unpruned policy, which would look slow beside others."""
    policy, processor = load_policy(folder)
    observations, clock, slow = load_observations(write_observations(tmp_path, n=1)), [0.0], [99.0]

    def asked(policy: Any, inputs: dict[str, Any], seed: int) -> torch.Tensor:
        clock[0] += slow.pop() if slow else 1.0
        return actions_of(policy, inputs, seed)

    monkeypatch.setattr("tokenprune.evals.actions.compare.actions_of", asked)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    setup = Pruned(label="", keep_ratio=0.5, strategy=Random(keep_ratio=0.5))
    (found,) = compare(policy, processor, observations, [setup])
    assert (found.unpruned_seconds, found.seconds) == (1, 1)


@pytest.mark.parametrize("data", ["lines", "lerobot"])
def test_the_command(folder: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write_observations(tmp_path / "data") if data == "lines" else write_lerobot(tmp_path / "data")
    output = tmp_path / "new" / "actions.json"
    words = ["--strategy", "random", "efficientvla:layer=1", "--keep-ratio", 0.5, "--limit", 2, "--output", output]
    words += ["--position-ids", "original", "compact"]
    assert command("actions", "--model", folder, "--data", place, *words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 observations, open loop" in printed
    assert "another draw of the noise" in printed
    assert "position IDs" in printed
    rows = json.loads(output.read_text(), parse_constant=pytest.fail)  # JSON has no NaN
    both = [(label, ids) for label in ("Random", "EfficientVLA 1") for ids in ("original", "compact")]
    assert [(row["label"], row["position_ids"]) for row in rows] == both
    assert all(0 < row["mean"] < row["worst"] for row in rows)


def said(model: str | Path, data: Path) -> str:
    return command("actions", "--model", model, "--data", data)


def test_what_is_no_policy(tmp_path: Path, folder: str) -> None:
    data = write_observations(tmp_path / "data")
    tiny_llava().save_pretrained(tmp_path / "llava")
    assert "'llava' model, which is not a robot policy (pi0, pi05)" in said(tmp_path / "llava", data)
    assert "no config.json" in said(tmp_path, data)
    assert "no such folder" in said(folder, tmp_path / "none")


@pytest.mark.parametrize("width", [WIDTH - 1, WIDTH + 1, 9])
def test_states_of_another_width(tmp_path: Path, folder: str, width: int) -> None:
    """The policy's own width is 8; its processor has statistics of 7 numbers."""
    data = write_observations(tmp_path / "data", n=1, state=[0.1] * width)
    assert f"a state of {width} numbers; the policy takes 7" in said(folder, data)


def test_observations_without_a_state(tmp_path: Path, folder: str, kind: str) -> None:
    """PI05 tells the state in the prompt, which then lacks it; PI0 needs one."""
    data = write_observations(tmp_path / "data", n=1, state=None)
    if kind == "PI0":
        assert 'no state, which the policy needs; add "state"' in said(folder, data)
        return
    policy, processor = load_policy(folder)
    (without,) = load_observations(data)
    (given,) = load_observations(write_observations(tmp_path / "data", n=1))
    whole, shorter = prepare(policy, processor, given), prepare(policy, processor, without)
    assert whole["input_ids"].shape[1] > shorter["input_ids"].shape[1]
    assert not torch.equal(actions_of(policy, whole, 0), actions_of(policy, shorter, 0))


def test_a_processor_without_statistics(tmp_path: Path, kind: str) -> None:
    missing = {"PI0": "state_mean", "PI05": "state_q01"}[kind]
    without = saved_policy(tmp_path / "policy", kind, **{missing: None})
    data = write_observations(tmp_path / "data", n=1)
    assert f"rejects it: Processing `state` needs `{missing}`" in said(without, data)


def test_a_policy_in_lerobots_format(tmp_path: Path) -> None:
    """Their config.json has a type, but no model_type, and there is no processor."""
    data = write_observations(tmp_path / "data", n=1)
    (tmp_path / "lerobot").mkdir()
    file = tmp_path / "lerobot" / "config.json"
    file.write_text('{"type": "pi05", "n_obs_steps": 1, "max_state_dim": 32, "device": "mps"}')
    assert "a policy in LeRobot's format, which has no processor of transformers" in said(tmp_path / "lerobot", data)
    file.write_text('{"type": "act", "n_obs_steps": 1}')
    assert "not a robot policy (pi0, pi05)" in said(tmp_path / "lerobot", data)


def test_an_output_that_cannot_be_written_is_said_before_the_policy_loads(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["--model", tmp_path / "none", "--data", tmp_path, "--output", tmp_path / "file" / "actions.json"]
    assert f"{tmp_path / 'file'}: cannot be a folder, because it is a file. Name" in command("actions", *words)
