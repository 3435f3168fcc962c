"""The bench on a simulated GPU: its events, when it waits, and whose memory it reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import command
from helpers.tiny import tiny_llava

from tokenprune.evals.bench.inputs import shapes
from tokenprune.evals.bench.timing.memory import free_bytes, with_peak
from tokenprune.evals.bench.timing.stopwatch import Stopwatch, timed_hooks

CUDA = torch.device("cuda")


class Gpu:
    """Runs the work in its stream when it is waited for. Each unit of work takes 1 ms."""

    def __init__(self) -> None:
        self.stream: list[Callable[[], None]] = []
        self.now = 0.0
        self.waits = 0
        self.allocated, self.most = 1000, 5000

    def work(self) -> None:
        self.stream.append(self._tick)

    def _tick(self) -> None:
        self.now += 1.0

    def synchronize(self, *_: Any) -> None:
        self.waits += 1
        while self.stream:
            self.stream.pop(0)()

    def event(self, *, enable_timing: bool) -> Any:
        assert enable_timing
        return Event(self)

    def reset(self, device: torch.device) -> None:
        assert device == CUDA
        self.most = self.allocated


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.reached = gpu, None

    def record(self) -> None:
        def reach() -> None:
            self.reached = self.gpu.now

        self.gpu.stream.append(reach)

    def elapsed_time(self, later: "Event") -> float:
        """Return milliseconds. As in PyTorch, only between events that were reached."""
        if self.reached is None or later.reached is None:
            raise RuntimeError("device not ready")
        return later.reached - self.reached


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(torch.cuda, "synchronize", made.synchronize)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", made.reset)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: made.allocated)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: made.most)
    return made


def test_time_is_that_of_the_stream_and_nothing_waits_between_marks(gpu: Gpu) -> None:
    gpu.work()  # earlier work is finished before the watch starts
    watch = Stopwatch(CUDA)
    assert (gpu.waits, gpu.now) == (1, 1)
    watch.mark("a")
    gpu.work()
    watch.mark("b")
    gpu.work()
    gpu.work()
    watch.mark("c")
    assert (gpu.waits, gpu.now) == (1, 1)
    assert watch.between("a", "b") == pytest.approx(1e-3)
    assert watch.between("a", "c") == pytest.approx(3e-3)
    assert watch.between("b", "c") == pytest.approx(2e-3)


def test_a_hook_takes_what_it_puts_into_the_stream(gpu: Gpu) -> None:
    inner, outer = torch.nn.Identity(), torch.nn.Identity()
    inner.register_forward_pre_hook(lambda module, args: gpu.work())
    outer.register_forward_pre_hook(lambda module, args: inner(*args))  # counts once
    outer.register_forward_hook(lambda module, args, output: gpu.work())
    watch = Stopwatch(CUDA)
    model = torch.nn.Sequential(inner, outer)
    before = [dict(module._forward_pre_hooks) for module in model.modules()]
    with timed_hooks(model, watch) as hooks:
        gpu.work()
        model(torch.ones(1))
        gpu.work()
    assert gpu.waits == 1
    assert hooks.seconds() == pytest.approx(3e-3)
    assert [dict(module._forward_pre_hooks) for module in model.modules()] == before


def test_the_peak_is_the_allocators_above_what_there_was(gpu: Gpu) -> None:
    def call() -> str:
        assert gpu.most == gpu.allocated  # earlier peaks are forgotten
        gpu.most = 1700
        return "result"

    assert with_peak(call, CUDA) == ("result", 700)


def test_a_model_is_built_on_the_gpu_if_it_has_the_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10_000, 80_000_000_000))
    monkeypatch.setitem(shapes.SHAPES, "llava-1.5-0.5b", lambda: tiny_llava().config)
    said = command("bench", "--output", tmp_path / "bench.json")
    assert "and cuda has 0.0 GB free" in said
    assert free_bytes(CUDA) == 10_000
