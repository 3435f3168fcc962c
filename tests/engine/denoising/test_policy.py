"""Robot policies: selection, skipped layers in both stacks, and reuse of the action expert's outputs, all together."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from helpers.contract.oracle import Identity, assert_close, dropped_columns, seen_by
from helpers.families import DENOISING
from helpers.families.denoising.base import Closed, Denoised
from helpers.tiny import tiny_llava
from transformers import Cache

import tokenprune
from tokenprune import EfficientVLA, PruningError, Random, Report, UnsupportedError

DEPTH, STEPS = 6, 4


@pytest.fixture(params=["pi0", "pi05"])
def family(request: pytest.FixtureRequest) -> Any:
    return DENOISING[request.param]


@cache
def model_of(family: Any) -> Any:
    return family.build(n_layers=DEPTH)


@contextmanager
def skipped(model: Any, numbers: tuple[int, ...]) -> Iterator[None]:
    """Within the block, these layers of both stacks do nothing."""
    stacks = model.model.vlm.language_model.layers, model.model.dit.layers
    before = [list(layers) for layers in stacks]
    for layers in stacks:
        for number in numbers:
            layers[number] = Identity(layers[number])
    try:
        yield
    finally:
        for layers, were in zip(stacks, before, strict=True):
            for number in numbers:
                layers[number] = were[number]


@contextmanager
def repeated(model: Any, every: int) -> Iterator[None]:
    """Within the block, the expert computes attention and MLPs in every step, but the output from the last step that is
    a multiple of `every` is used instead."""
    outputs: dict[Any, Any] = {}
    step = [-1]

    def begin(*_: Any) -> None:
        step[0] += 1

    def repeat(module: Any, args: Any, output: Any) -> Any:
        if step[0] % every == 0:
            outputs[module] = output
        return outputs[module]

    hooks = [model.model.dit.register_forward_pre_hook(begin)]
    for layer in model.model.dit.layers:
        if not isinstance(layer, Identity):
            hooks += [one.register_forward_hook(repeat) for one in (layer.self_attn, layer.mlp)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def expected(family: Any, report: Report, inputs: dict[str, Any], skip: tuple[int, ...], every: int) -> Any:
    model, ids = model_of(family), inputs["input_ids"]
    dropped = [dropped_columns(ids, [seen_by(report, layer)]) for layer in range(DEPTH)]
    with skipped(model, skip), repeated(model, every):
        return family.expected(model, inputs, Denoised([], inputs["noise"]), Closed(dropped, {}))


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("skip", [(), (2,), (2, 3)])
@pytest.mark.parametrize("keep_ratio", [0.3, 1.0])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_the_three_parts_together(
    family: Any, padding: str, keep_ratio: float, skip: tuple[int, ...], every: int
) -> None:
    inputs = family.prompt([1, 2], padding=padding)
    strategy = EfficientVLA(keep_ratio=keep_ratio, layer=1, key=2, skip=skip, reuse=every)
    with tokenprune.patch(model_of(family), strategy) as handle:
        actions = model_of(family).sample_actions(**inputs)
        report = handle.report
    assert_close(actions, expected(family, report, inputs, skip, every))
    if skip:
        assert (actions - expected(family, report, inputs, (), every)).abs().max() > 1e-3
    if every > 1:
        assert (actions - expected(family, report, inputs, skip, 1)).abs().max() > 1e-3
    assert report.skipped == skip
    assert (report.denoising.steps, report.denoising.computed) == (STEPS, -(-STEPS // every))
    assert [len(image.kept_at(1)) for image in report.images] == [11 if keep_ratio < 1 else 36] * 3


def test_computing_every_step_is_bitwise_the_same(family: Any) -> None:
    inputs = family.prompt([2])
    unpatched = model_of(family).sample_actions(**inputs)
    with tokenprune.patch(model_of(family), EfficientVLA(keep_ratio=1.0, reuse=1)):
        assert torch.equal(model_of(family).sample_actions(**inputs), unpatched)
    with tokenprune.patch(model_of(family), EfficientVLA(keep_ratio=1.0, reuse=2)):
        assert not torch.equal(model_of(family).sample_actions(**inputs), unpatched)
        one_step = family.build(n_layers=DEPTH).sample_actions(**inputs, num_steps=1)
        assert torch.equal(model_of(family).sample_actions(**inputs, num_steps=1), one_step)
    assert torch.equal(model_of(family).sample_actions(**inputs), unpatched)


def test_a_patch_that_is_replaced_between_steps(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new patch continues with the outputs of the earlier steps."""
    model, inputs, crop = model_of(family), family.prompt([1]), Cache.crop
    strategies = [EfficientVLA(keep_ratio=1.0, reuse=STEPS, alpha=alpha) for alpha in (0.5, 0.25)]

    def replaced(cache: Any, *args: Any) -> None:
        tokenprune.patch(model, strategies[-1])
        crop(cache, *args)

    with tokenprune.patch(model, strategies[0]):
        expected = model.sample_actions(**inputs)
        monkeypatch.setattr(Cache, "crop", replaced)  # it is called after every step
        assert torch.equal(model.sample_actions(**inputs), expected)
    tokenprune.unpatch(model)


def test_the_report_counts_what_the_steps_read(family: Any) -> None:
    """There are six layers with two heads of width 8, in float32."""
    inputs = family.prompt([1])
    length, per_token = inputs["input_ids"].shape[1], 2 * 2 * 8 * 4
    with tokenprune.patch(model_of(family), EfficientVLA(keep=6, layer=1, skip=(3,), reuse=2)) as handle:
        model_of(family).sample_actions(**inputs)
        done = handle.report.denoising
    assert done.kv_bytes_unpruned == STEPS * 6 * length * per_token
    assert done.kv_bytes_read == 2 * (length + 4 * (length - 30)) * per_token
    assert "2 of them from earlier outputs, read" in repr(done)


def test_training_gives_the_loss_and_gradients_of_masking(family: Any) -> None:
    model, inputs = family.build(n_layers=2), family.prompt([1, 2])
    given = {**inputs, "timestep": torch.tensor([0.2, 0.7]), "actions": torch.ones_like(inputs["noise"])}
    with tokenprune.patch(model, Random(keep_ratio=0.3)) as handle:
        loss = model(**given).loss
        loss.backward()
        dropped = dropped_columns(inputs["input_ids"], [handle.report])
    pruned = model.model.vlm.language_model.layers[0].mlp.up_proj.weight.grad.clone()
    model.zero_grad()
    from helpers.families.denoising.pi0 import masked

    with masked(model, Closed([dropped] * 2, {})):
        masked_loss = model(**given).loss
    masked_loss.backward()
    torch.testing.assert_close(loss, masked_loss)
    torch.testing.assert_close(
        pruned, model.model.vlm.language_model.layers[0].mlp.up_proj.weight.grad, atol=1e-6, rtol=1e-4
    )


@pytest.mark.parametrize("stack", ["vlm.language_model", "dit"])
def test_attention_that_takes_no_masks_is_refused_in_both_stacks(family: Any, stack: str) -> None:
    model = family.build()
    model.model.get_submodule(stack).config._attn_implementation = "flex_attention"
    with pytest.raises(UnsupportedError, match="attn_implementation='flex_attention' does not take them"):
        tokenprune.patch(model, Random())


def test_by_default_every_fifth_step_is_computed(family: Any) -> None:
    with tokenprune.patch(model_of(family), EfficientVLA()) as handle:
        model_of(family).sample_actions(**family.prompt([1]), num_steps=7)
    assert (handle.report.denoising.steps, handle.report.denoising.computed) == (7, 2)


def test_other_models_have_no_expert() -> None:
    with pytest.raises(UnsupportedError, match="reuse=1"):
        tokenprune.patch(tiny_llava(), EfficientVLA(layer=1, reuse=5))
    tokenprune.patch(tiny_llava(), EfficientVLA(layer=1))


def test_embeddings_from_elsewhere_are_an_error(family: Any) -> None:
    model, inputs = model_of(family), family.prompt([1])
    embeds = model.model.embed_prefix(inputs["input_ids"], inputs["pixel_values"], inputs["pixel_attention_mask"])
    with tokenprune.patch(model, Random(keep_ratio=0.5)), pytest.raises(PruningError, match="embed_prefix"):
        model(**{**inputs, "inputs_embeds": embeds}, timestep=torch.tensor([0.5]))


def test_an_exception_leaves_the_policy_usable(family: Any) -> None:
    model, inputs = model_of(family), family.prompt([1])
    with tokenprune.patch(model, Random(keep_ratio=0.5)):
        whole = model.sample_actions(**inputs)
        with pytest.raises(RuntimeError):
            model.sample_actions(**{**inputs, "noise": inputs["noise"][..., :3]})
        assert torch.equal(model.sample_actions(**inputs), whole)


def test_the_visual_tokens_are_those_of_the_cameras_that_are_there(family: Any) -> None:
    """The second row's only camera is in the second place."""
    inputs = family.prompt([2, 1])
    assert inputs["pixel_attention_mask"].tolist() == [[True, True], [False, True]]
    with tokenprune.probe(model_of(family), needs={"pixels"}) as probe:
        model_of(family).sample_actions(**inputs)
        images = probe.images
    assert [image.row for image in images] == [0, 0, 1]
    assert torch.equal(images[2].tokens.pixels[0], inputs["pixel_values"][1, 1])
