"""What bench stores and draws: rounds, memory, the largest batch, and rendered images."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.families import FAMILIES
from helpers.tiny import tiny_llava
from PIL import Image
from transformers import Qwen2VLImageProcessor

import tokenprune
from tokenprune import PixelPrune
from tokenprune.errors import SettingError
from tokenprune.evals.bench import measuring
from tokenprune.evals.bench.figures import Memory
from tokenprune.evals.bench.inputs import prompts
from tokenprune.evals.bench.inputs.rendered import rendered
from tokenprune.evals.bench.record import Record, about
from tokenprune.evals.bench.timing.memory import ENVIRONMENT
from tokenprune.evals.run.setups import Pruned
from tokenprune.tokens import PatchTokens

GRID = [Pruned(label="Grid", keep_ratio=0.25, strategy=tokenprune.Grid(0.25))]


def test_further_rounds_of_generate_begin_with_an_untimed_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first call allocates and, on a GPU, loads kernels: also in a process that adds rounds to a file."""
    model, path, calls = tiny_llava(), tmp_path / "bench.json", list[int]()

    def generated(*_: Any) -> dict[str, float]:
        calls.append(1)
        return {"generate": 1.0}

    monkeypatch.setattr(measuring, "generated", generated)
    for _ in range(2):
        record = Record.open(path, about(model, "tiny", "sdpa", 24))
        measuring.measure_throughput(model, prompts.random_prompt(model, 1), GRID, record, rounds=1, n_new=3)
    assert len(calls) == 2 * (2 + 2)  # of the unpruned model and of Grid


def test_rounds_of_another_process_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    first, second = (Record.open(path, {"model": "tiny"}) for _ in range(2))
    first.add_round(1, {})
    first.write()
    first.write()
    second.add_round(1, {})
    with pytest.raises(SettingError, match=r"bench\.json: another benchmark has written it .* began\. Wait"):
        second.write()
    assert len(Record.read(path).rounds) == 1
    path.unlink()
    first.write()  # deleted by the user, it is there again
    third = Record.open(path, {"model": "tiny"})
    third.add_round(1, {})
    third.write()
    assert len(Record.read(path).rounds) == 2


# With glibc, freed memory stays in the process.


#: Prints how many pages are faulted in for large blocks that are allocated and freed.
FETCHED = """
import resource, sys
import torch
from tokenprune.evals.bench.timing.memory import keep_memory
if sys.argv[1] == "kept":
    assert keep_memory()
torch.ones(16 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def fetched(how: str, environment: dict[str, str]) -> int:
    command = [sys.executable, "-c", FETCHED, how]
    return int(subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_are_fetched_once() -> None:
    own = fetched("as it is", {})
    assert own > 100
    assert fetched("kept", {}) < own / 10
    assert fetched("as it is", ENVIRONMENT) < own / 10


# How many sequences fit into a device's memory.


def test_the_largest_batch() -> None:
    memory = Memory.of(1000, {1: 110, 2: 210, 4: 410})
    assert memory.largest_batch(1711.0) == 7
    assert memory.largest_batch(1809.0) == 7
    assert memory.largest_batch(900.0) == 0
    assert Memory.of(1000, {4: 400}).largest_batch(1550.0) == 5


# The images that the bench draws, and how they are passed to a model.


@pytest.mark.parametrize(("kind", "share"), [("page", 0.5), ("table", 0.45), ("screen", 0.25)])
def test_much_of_them_repeats(kind: str, share: float) -> None:
    """Counts the squares of 28 pixels, Qwen2.5-VL's visual tokens, that no neighbour predicts."""
    pixels = torch.from_numpy(np.array(rendered(kind, 1008))).float() / 255
    squares = pixels.view(36, 28, 36, 28, 3).transpose(1, 2).reshape(36**2, -1)
    kept = PixelPrune().select_patches(PatchTokens(squares, (1, 36, 36))).kept
    assert len(kept) / 36**2 == pytest.approx(share, abs=0.07)


def test_patches_are_those_of_the_processor() -> None:
    """That is Qwen2-VL's processor, without resizing and normalised to -1 to 1."""
    config, half = FAMILIES["qwen2.5-vl"].config(), [0.5, 0.5, 0.5]
    vision, image = config.vision_config, rendered("table", 64)
    processor = Qwen2VLImageProcessor(
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        do_resize=False,
        image_mean=half,
        image_std=half,
    )
    expected = processor(images=[image], return_tensors="pt")
    pixels = prompts.pixels_of(config, image, expected["pixel_values"].shape)
    assert expected["image_grid_thw"].tolist() == [[1, 16, 16]]
    torch.testing.assert_close(pixels, expected["pixel_values"], atol=1e-5, rtol=0)


def test_towers_of_one_size_get_it_resized() -> None:
    image = Image.new("RGB", (100, 100), (255, 0, 51))
    pixels = prompts.random_prompt(tiny_llava(), 2, shown=image)["pixel_values"]
    assert pixels.shape == (2, 3, 24, 24)
    torch.testing.assert_close(pixels[1].mean((1, 2)), torch.tensor([1.0, -1.0, -0.6]))


def test_an_unknown_kind() -> None:
    with pytest.raises(SettingError, match=r"unknown kind of image 'pages'\. Did you mean 'page'"):
        rendered("pages", 100)
