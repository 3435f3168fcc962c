"""Patches that replace each other, in `with` blocks and out of order, and objects that cannot be patched."""

import json
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.tiny import prompt, tiny_llava
from transformers import AutoModelForCausalLM

import tokenprune
from tokenprune import FastV, FoPru, Grid, PruningError, Random, SettingError, UnsupportedError
from tokenprune.encoded import RECORD_ATTRIBUTE
from tokenprune.engine.pruner import Pruner


def n_kept(handle: tokenprune.PatchHandle) -> int:
    with torch.no_grad():
        handle.model(**prompt([1]))
    return handle.report.n_kept


def test_the_outer_patch_is_in_effect_again_after_the_inner_block(llava: Any) -> None:
    with tokenprune.patch(llava, Grid(keep=9)) as outer:
        for keep in (4, 16):
            with tokenprune.patch(llava, Grid(keep=keep)) as inner:
                assert (n_kept(inner), outer.installed) == (keep, False)
            assert (n_kept(outer), inner.installed) == (9, False)
        with pytest.raises(ZeroDivisionError), tokenprune.patch(llava, FoPru()):
            raise ZeroDivisionError
        assert outer.installed
        with tokenprune.patch(llava, FoPru()) as inner:
            inner.remove()
            assert not outer.installed
        assert outer.installed
    assert not outer.installed


def test_an_outer_patch_that_was_removed_stays_removed(llava: Any) -> None:
    with tokenprune.patch(llava, Grid(keep=9)) as outer:
        with tokenprune.patch(llava, Grid(keep=4)):
            outer.remove()
        assert not outer.installed


def test_without_blocks_the_last_patch_counts_and_its_removal_unpatches(llava: Any) -> None:
    first = tokenprune.patch(llava, Grid(keep=9))
    second = tokenprune.patch(llava, Grid(keep=4))
    first.remove()
    assert n_kept(second) == 4
    with tokenprune.patch(llava, Grid(keep=1)):
        last = tokenprune.patch(llava, Grid(keep=2))
    assert n_kept(last) == 2
    last.remove()
    assert not any(handle.installed for handle in (first, second, last))
    first.remove()


def test_a_block_of_a_patch_that_is_gone(llava: Any) -> None:
    """The block would run unpruned, and report what an earlier one has pruned."""
    first = tokenprune.patch(llava, Grid(keep=3))
    with first:
        pass
    replaced = tokenprune.patch(llava, Grid(keep=3))
    with tokenprune.patch(llava, Grid(keep=4)) as last:
        for handle in (first, replaced):
            with (
                pytest.raises(PruningError, match=r"was removed or replaced.* with tokenprune.patch\(model, ...\)"),
                handle,
            ):
                pass
        assert last.installed
    with tokenprune.probe(llava) as seen:
        pass
    with pytest.raises(PruningError, match=r"Make a new one: with tokenprune.probe\(model, ...\)"), seen:
        pass


def test_a_block_within_its_own(llava: Any) -> None:
    """The end of the inner block would remove the patch, and the rest of the outer block would run unpruned."""
    with tokenprune.patch(llava, Grid(keep=3)) as handle:
        with pytest.raises(PruningError, match="already in effect in an outer `with` block"), handle:
            pass
        assert n_kept(handle) == 3
    assert not handle.installed


def test_methods_that_were_wrapped_while_patched_are_left_as_they_were() -> None:
    """A wrapper still calls what it wrapped after the patch is removed."""
    llava, inputs = tiny_llava(), prompt([1])
    labels = inputs["input_ids"].clone()
    with torch.no_grad():
        loss = llava(**inputs, labels=labels).loss
    handle = tokenprune.patch(llava, Grid(keep=4))
    called = []
    for module, name in ((llava.model, "get_image_features"), (llava, "loss_function"), (llava, "generate_batch")):
        setattr(module, name, wrapped(getattr(module, name), name, called))
    assert n_kept(handle) == 4
    handle.remove()
    with torch.no_grad():
        output = llava(**inputs, labels=labels)
        features = llava.model.get_image_features(inputs["pixel_values"], return_dict=True)
    assert output.loss == loss
    assert not hasattr(features, RECORD_ATTRIBUTE)
    assert not llava.generate_batch([])
    assert set(called) == {"get_image_features", "loss_function", "generate_batch"}
    with tokenprune.patch(llava, Grid(keep=9)) as again:
        assert n_kept(again) == 9
        with torch.no_grad():
            assert torch.isfinite(llava(**inputs, labels=labels).loss)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("", "forward"),
        ("model", "get_image_features"),
        ("model.language_model.layers.1", "forward"),
        ("model.language_model.layers.0.self_attn", "forward"),
        ("model.language_model.layers.0.self_attn.q_proj", "forward"),
    ],
)
def test_methods_of_classes_that_are_replaced_while_patched(
    part: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Liger Kernel and others. The patched model uses them, like the unpatched one."""
    model, inputs, called = tiny_llava(), prompt([1]), list[Any]()
    module = model.get_submodule(part)
    method = getattr(type(module), name)

    @wraps(method)
    def replacement(self: Any, *args: Any, **kwargs: Any) -> Any:
        called.append(self)
        return method(self, *args, **kwargs)

    with torch.no_grad(), tokenprune.patch(model, FastV(keep_ratio=0.5, layer=1)) as handle:
        monkeypatch.setattr(type(module), name, replacement)
        model(**inputs)
    assert called.count(module) == 1
    assert handle.report.n_left == 18


def wrapped(method: Any, name: str, called: list[str]) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        called.append(name)
        return method(*args, **kwargs)

    return wrapper


def test_a_settings_file_as_a_path(llava: Any, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"strategy": "grid", "settings": {"keep": 4}}))
    with tokenprune.patch(llava, tmp_path / "settings.json") as handle:
        assert handle.strategy == Grid(keep=4)


@pytest.mark.usefixtures("unchecked")
def test_what_has_a_model_inside(llava: Any) -> None:
    """For example a handle, or arguments in the wrong order."""
    handle: Any = tokenprune.patch(llava, Grid())
    try:
        for call in (partial(tokenprune.patch, strategy=FoPru()), tokenprune.unpatch):
            with pytest.raises(UnsupportedError, match=r"^a PatchHandle is not a model. Pass the model inside it"):
                call(handle)
        assert handle.installed
    finally:
        handle.remove()
    swapped: Any = (FoPru(keep=3), llava)
    with pytest.raises(SettingError, match=r"the model comes first: write patch\(model, FoPru\(keep=3\)\)"):
        tokenprune.patch(*swapped)


@pytest.mark.usefixtures("unchecked")
def test_a_part_of_a_model() -> None:
    """Its base model, its tower, or what AutoModelForCausalLM loads from a checkpoint: only the language model."""
    family = FAMILIES["qwen3.5"]
    model = family.build()
    alone = AutoModelForCausalLM.from_config(family.config())
    for part in (model.model, model.model.visual, model.model.language_model, alone):
        named = type(part).__name__
        with pytest.raises(
            UnsupportedError,
            match=rf"^{named} is not the class that answers about images: Qwen3_5ForConditionalGeneration is\. Patch "
            r"the whole model, .* Qwen3_5ForConditionalGeneration\.from_pretrained loads it; .*ForCausalLM may not\.$",
        ):
            tokenprune.patch(part, FoPru())


def test_a_patch_is_restored_though_another_replaced_the_probe(llava: Any) -> None:
    """But not a patch that `unpatch` has removed in the meantime."""
    inputs = prompt([1])
    with torch.no_grad(), tokenprune.patch(llava, Random(keep=3)) as handle:
        with tokenprune.probe(llava), tokenprune.patch(llava, Random(keep=5)):
            llava(**inputs)
        llava(**inputs)
        assert handle.report.n_kept == 3
        with tokenprune.probe(llava):
            tokenprune.unpatch(llava)
        assert Pruner.on(llava) is None


def test_a_patch_does_not_come_back_beside_the_one_that_replaced_the_probe(llava: Any) -> None:
    with tokenprune.patch(llava, Random(keep=3)) as handle:
        with tokenprune.probe(llava):
            last = tokenprune.patch(llava, Random(keep=5))
        assert (n_kept(last), handle.installed) == (5, False)
    assert n_kept(last) == 5
    last.remove()
