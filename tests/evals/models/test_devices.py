"""Models that accelerate partly offloads to the CPU or a disk give the same answers as others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.modes.test_devices import from_cpu, from_disk, one_device, two_devices
from helpers.asking import without_times
from helpers.commands import command
from helpers.files.evals import saved, tiny_processor, write_vqav2
from helpers.tiny import tiny_llava

from tokenprune import SettingError, UnsupportedError
from tokenprune.adapters.devices import input_device
from tokenprune.evals.harness.model import HarnessModel
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.storage.answers import Answer, AnswerKey
from tokenprune.evals.storage.provenance import weights_digest
from tokenprune.evals.storage.run_folder import RunFolder

#: transformers before 5.2x mistakes the device of offloaded weights for the model's.
pytestmark = pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")

OPTIONS: dict[str, Any] = {"strategies": ["fopru"], "keep_ratios": [0.25], "position_ids": ["original"]}
dispatched = pytest.mark.parametrize("dispatch", [one_device, two_devices, from_cpu, from_disk])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("devices") / "scenes"
    write_vqav2(folder, 3)
    return folder


def answers_in(folder: Path) -> dict[AnswerKey, Answer]:
    return without_times(RunFolder(folder).answers().values())


@pytest.fixture(scope="module")
def plain(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a model that is not offloaded."""
    output = tmp_path_factory.mktemp("plain") / "run"
    evaluate((tiny_llava(), tiny_processor()), output=output, data=scenes, **OPTIONS)
    return output


@dispatched
def test_answers_are_the_same(dispatch: Callable[[Any, Path], Any], scenes: Path, plain: Path, tmp_path: Path) -> None:
    """So is the model's digest, so that a run can resume with a different placement."""
    model = dispatch(tiny_llava(), tmp_path / "weights")
    is_away = any(weight.is_meta for weight in model.get_encoder(modality="image").parameters())
    rows = evaluate((model, tiny_processor()), output=tmp_path / "run", data=scenes, **OPTIONS)
    assert [row.strategy for row in rows] == ["unpruned", "FoPru", "Random", *([] if is_away else ["downsample"])]
    expected = {
        asked: answer
        for asked, answer in answers_in(plain).items()
        if not is_away or asked.key.strategy != "downsample"
    }
    assert answers_in(tmp_path / "run") == expected
    models = [RunFolder(folder).record["identity"]["model"] for folder in (plain, tmp_path / "run")]
    assert models[0] == models[1]


@dispatched
def test_other_weights_have_another_digest(dispatch: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    changed = tiny_llava()
    with torch.no_grad():
        changed.lm_head.weight[0, 0] += 1
    one, other = dispatch(tiny_llava(), tmp_path / "one"), dispatch(changed, tmp_path / "other")
    assert weights_digest(one) == weights_digest(tiny_llava())
    assert weights_digest(one) != weights_digest(other)
    assert input_device(one) == torch.device("cpu")


def test_a_tower_that_is_away_cannot_be_downsampled(scenes: Path, tmp_path: Path) -> None:
    model = from_cpu(tiny_llava(), tmp_path)
    with pytest.raises(UnsupportedError, match=r"leave it out \(--baselines unpruned random\), or keep the tower"):
        evaluate((model, tiny_processor()), output=tmp_path / "run", data=scenes, baselines=["downsample"], **OPTIONS)


def test_device_map_of_the_command(scenes: Path, tmp_path: Path) -> None:
    model = saved(tiny_llava(), tmp_path / "model")
    asked = ["eval", "--model", model, "--data", scenes, "--strategy", "fopru", "--keep-ratio", 0.25]
    for name, device_map in (("one", []), ("auto", ["--device-map", "auto"])):
        assert command(*asked, *device_map, "--output", tmp_path / name) == 0
    assert answers_in(tmp_path / "auto") == answers_in(tmp_path / "one")


@pytest.mark.parametrize(("device_map", "said"), [("gpu", "Expected one of cpu, "), ("cuda:77", ""), ("", "")])
def test_a_device_map_that_this_machine_does_not_have(tmp_path: Path, device_map: str, said: str) -> None:
    """The weights are not to blame."""
    model = saved(tiny_llava(), tmp_path / "model")
    with pytest.raises(SettingError, match=r"^device_map \(--device-map\) .*Write auto, or a device of this") as caught:
        load_model(model, device_map=device_map)
    assert f"{device_map!r}: {said}" in str(caught.value)


def test_a_harness_model_that_is_spread(tmp_path: Path) -> None:
    """`device_map` of lmms-eval's --model_args."""
    model = saved(tiny_llava(), tmp_path / "model")
    shown = [{"role": "user", "content": [{"type": "text", "text": "01 02"}]}]
    replies = [
        HarnessModel(model, "fopru", keep_ratio=0.25, device_map=device_map).answers([shown], {"max_new_tokens": 4})
        for device_map in (None, "auto")
    ]
    assert replies[0] == replies[1]
