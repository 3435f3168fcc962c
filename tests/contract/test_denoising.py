"""The contract matrix of models that denoise: every step of a pruned model equals that of the unpruned model with the
dropped tokens masked, in both of its stacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers.contract.cells import ANYWHERE, DEPTH, MECHANISMS, assert_within_budget, served, strategy_of
from helpers.contract.oracle import assert_close, dropped_columns, placed, seen_by
from helpers.contract.tower import close_in_tower
from helpers.families import DENOISING
from helpers.families.denoising.base import Closed
from torch import Tensor

import tokenprune
from tokenprune import STRATEGIES
from tokenprune.adapters import adapter_for

#: DiffusionGemma's generate marks the beginning of steps for the compiler, which imports all of the compiler.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
BATCHES: dict[str, dict[str, Any]] = {
    "single": {"images_per_row": [1]},
    "padded": {"images_per_row": [1, 2]},
    "right": {"images_per_row": [2, 1], "padding": "right"},
}
#: Every strategy in the hardest batch, and one of each mechanism in all.
CELLS = [
    (name, case, mode, batch)
    for name in STRATEGIES
    for case, family in DENOISING.items()
    for mode in family.modes
    for batch in BATCHES
    if name in MECHANISMS or (mode, batch) == ("denoised", "padded")
]
PAIRS = [(name, case) for name in MECHANISMS for case in DENOISING]


@contextmanager
def merging(model: Any, inputs: dict[str, Any], report: tokenprune.Report) -> Iterator[None]:
    """Within the block, apply the merges of the report to the first call of the language model, before it and on entry
    to its layers, and mask in encoder layers what was dropped in the tower."""
    adapter, ids = adapter_for(model), inputs["input_ids"]
    done: list[int] = []

    def before(module: Any, args: Any, kwargs: Any) -> Any:
        if -1 in done:
            return args, kwargs
        done.append(-1)
        embeds = kwargs["inputs_embeds"].clone()
        for row, columns, image in placed(ids, [report]):
            if image.merged is not None:
                embeds[row, columns[image.kept]] = image.merged.apply(embeds[row, columns], image.kept)
        return args, {**kwargs, "inputs_embeds": embeds}

    def entering(number: int) -> Any:
        def enter(module: Any, args: Any) -> Any:
            hidden, *rest = args
            hidden = hidden.clone()
            for row, columns, image in placed(ids, [report]):
                for stage in image.stages:
                    if stage.layer == number and stage.merged is not None:
                        hidden[row, columns[stage.kept]] = stage.merged.apply(hidden[row, columns], stage.kept)
            return hidden, *rest

        return enter

    hooks = [adapter.language_model.register_forward_pre_hook(before, with_kwargs=True)]
    if any(image.stages for image in report.images):
        hooks += [layer.register_forward_pre_hook(entering(number)) for number, layer in enumerate(adapter.layers)]
    if any(image.in_tower for image in report.images):
        cameras = inputs["pixel_attention_mask"].flatten().nonzero()[:, 0].tolist()  # some places have no camera
        images = [image for *_, image in placed(ids, [report])]
        for number, layer in enumerate(adapter.tower.layers(adapter.vision_tower)):
            hooks += close_in_tower(adapter, images, number, layer, cameras)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def closed_by(report: tokenprune.Report, ids: Tensor) -> Closed:
    """Return what each layer does not see according to a report."""
    return Closed([dropped_columns(ids, [seen_by(report, layer)]) for layer in range(DEPTH)], {})


@pytest.mark.parametrize(("name", "case", "mode", "batch"), CELLS)
def test_dropping_equals_masking(name: str, case: str, mode: str, batch: str) -> None:
    _, model = served(name, case)
    family, inputs = DENOISING[case], DENOISING[case].prompt(**BATCHES[batch])
    with tokenprune.patch(model, strategy_of(name)) as handle:
        done = family.denoise(model, inputs, mode)
        report = handle.report
    with merging(model, inputs, report):
        expected = family.expected(model, inputs, done, closed_by(report, inputs["input_ids"]))
    assert_close(done.outputs, expected)
    for image in report.images:
        assert_within_budget(strategy_of(name), image)
    blind = dropped_columns(inputs["input_ids"], [report])
    nothing = Closed([torch.zeros_like(blind)] * DEPTH, {})
    if mode == "denoised":  # so the oracle distinguishes the two
        whole = family.expected(model, inputs, done, nothing)
        assert (whole - expected).abs().max() > 1e-3
    assert report.denoising is not None
    assert 0 < report.denoising.kv_bytes_read < report.denoising.kv_bytes_unpruned


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_compact_is_masking_under_compact_ids(name: str, case: str) -> None:
    _, model = served(name, case)
    family, inputs = DENOISING[case], DENOISING[case].prompt(**BATCHES["padded"])
    with tokenprune.patch(model, strategy_of(name), position_ids="compact") as handle:
        done = family.denoise(model, inputs, "denoised")
        report = handle.report
    closed = closed_by(report, inputs["input_ids"])
    before = dropped_columns(inputs["input_ids"], [report])
    ids = family.position_ids(model, inputs) - (before.long().cumsum(1) - before.long())
    closed = Closed(closed.dropped, closed.late, ids, before.sum(1))
    with merging(model, inputs, report):
        assert_close(done.outputs, family.expected(model, inputs, done, closed))


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_keeping_all_is_bitwise_the_unpatched_model(name: str, case: str) -> None:
    _, model = served(name, case)
    family, inputs = DENOISING[case], DENOISING[case].prompt(**BATCHES["padded"])
    for mode in family.modes:
        unpatched = family.denoise(model, inputs, mode).outputs
        with tokenprune.patch(model, strategy_of(name, keep_ratio=1.0)) as handle:
            assert torch.equal(family.denoise(model, inputs, mode).outputs, unpatched)
            assert handle.report.n_kept == handle.report.n_visual > 0


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_a_batch_gives_what_its_samples_give(name: str, case: str) -> None:
    _, model = served(name, case)
    family, inputs = DENOISING[case], DENOISING[case].prompt([1, 1], texts=[4, 4])
    with tokenprune.patch(model, strategy_of(name)) as handle:
        family.denoise(model, inputs, "denoised")
        together = [image.kept.tolist() for image in handle.report.images]
        for row in range(2):
            alone = {key: value[row : row + 1] for key, value in inputs.items()}
            family.denoise(model, alone, "denoised")
            assert [image.kept.tolist() for image in handle.report.images] == together[row : row + 1]


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_remove_leaves_nothing_behind(name: str, case: str) -> None:
    _, model = served(name, case)
    family, inputs = DENOISING[case], DENOISING[case].prompt(**BATCHES["single"])
    unpatched = family.denoise(model, inputs, "denoised").outputs

    def state() -> list[Any]:
        return [
            (module, {key: dict(value) if isinstance(value, dict) else value for key, value in vars(module).items()})
            for module in model.modules()
        ]

    before = state()
    with tokenprune.patch(model, strategy_of(name)):
        assert state() != before
        pruned = family.denoise(model, inputs, "denoised").outputs
        assert not torch.equal(pruned, unpatched)
    assert state() == before
    assert torch.equal(family.denoise(model, inputs, "denoised").outputs, unpatched)


# A policy always has cameras.
@pytest.mark.parametrize("case", [case for case in DENOISING if case not in ("pi0", "pi05")])
def test_text_only_is_bitwise_the_unpatched_model(case: str) -> None:
    _, model = served(ANYWHERE, case)
    family, inputs = DENOISING[case], DENOISING[case].prompt([0, 0])
    unpatched = family.denoise(model, inputs, "denoised").outputs
    with tokenprune.patch(model, strategy_of(ANYWHERE)):
        assert torch.equal(family.denoise(model, inputs, "denoised").outputs, unpatched)
