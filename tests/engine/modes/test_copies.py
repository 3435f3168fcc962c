"""Copies, pickles and checkpoints of a patched model; several models, threads and patches in one process."""

import copy
import io
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.stages.test_skipping import Skipping
from helpers.contract.answers import STRATEGY, answer, n_logits
from helpers.families import FAMILIES
from helpers.models.staged import Staged, model_of
from helpers.tiny import ENCODES_FIRST, prompt, tiny_llava

import tokenprune
from tokenprune import FoPru, Grid, PixelPrune, Selection, ToMe
from tokenprune.engine.recording import VisionRecorder
from tokenprune.tokens import VisualTokens

GONE = r"removed or replaced the patch before .* Call the model again"
PRUNED, WHOLE = 15, 42  # columns of prompt([1]): 6 of text, and 9 or 36 visual tokens


def torch_save(model: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), torch_save],
    ids=["deepcopy", "pickle", "torch_save"],
)
@pytest.mark.parametrize("strategy", [STRATEGY, ToMe(keep_ratio=0.25), Skipping(layers=(1,))], ids=type)
def test_a_copy_is_patched_by_itself(strategy: tokenprune.Strategy, duplicate: Callable[[Any], Any]) -> None:
    model, inputs = tiny_llava(), prompt([1])
    handle = tokenprune.patch(model, strategy)
    twin = duplicate(model)
    with torch.no_grad():
        logits = twin(**inputs).logits
    assert logits.shape[1] == PRUNED
    with pytest.raises(tokenprune.PruningError, match="no report yet"):
        _ = handle.report  # a forward of the twin is not one of the original
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, logits)

    tokenprune.unpatch(twin)
    assert (n_logits(model, inputs), n_logits(twin, inputs)) == (PRUNED, WHOLE)
    tokenprune.patch(twin, Grid(keep=4))
    handle.remove()
    assert (n_logits(model, inputs), n_logits(twin, inputs)) == (WHOLE, 10)
    tokenprune.unpatch(twin)
    for module in (*model.modules(), *twin.modules()):
        hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values(), *vars(module).values())
        assert not any(type(hook).__module__.startswith("tokenprune") for hook in hooks)
        assert not any(type(getattr(hook, "__self__", None)).__module__.startswith("tokenprune") for hook in hooks)


def test_a_copied_handle_belongs_to_the_copied_model() -> None:
    model, inputs = tiny_llava(), prompt([1])
    handle = tokenprune.patch(model, STRATEGY)
    twin, its_handle = copy.deepcopy((model, handle))
    n_logits(twin, inputs)
    assert its_handle.report.n_kept == 9
    its_handle.remove()
    assert (n_logits(model, inputs), n_logits(twin, inputs)) == (PRUNED, WHOLE)


def test_a_checkpoint_has_no_trace_of_the_patch(tmp_path: Path) -> None:
    model = tiny_llava()
    model.save_pretrained(tmp_path / "before")
    names = list(model.state_dict())
    with tokenprune.patch(model, STRATEGY):
        n_logits(model, prompt([1]))
        assert list(model.state_dict()) == names
        model.save_pretrained(tmp_path / "patched")
    files = sorted(path.name for path in (tmp_path / "before").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "patched").iterdir())
    for name in files:
        assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "patched" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("case", "strategy"), [("llava-clip", ToMe(keep_ratio=0.3)), ("qwen2-vl", PixelPrune(keep_ratio=0.3))]
)
def test_a_tower_that_two_models_share(case: str, strategy: tokenprune.Strategy) -> None:
    model, other, inputs = FAMILIES[case].build(), FAMILIES[case].build(seed=1), FAMILIES[case].prompt([1])
    name = "visual" if case == "qwen2-vl" else "vision_tower"
    setattr(other.model, name, getattr(model.model, name))
    plain = answer(other, inputs)
    with tokenprune.patch(other, FoPru(keep_ratio=0.3)):
        pruned = answer(other, inputs)
    with tokenprune.patch(model, strategy):
        assert torch.equal(answer(other, inputs).logits[0], plain.logits[0])
        with tokenprune.patch(other, FoPru(keep_ratio=0.3)):
            assert torch.equal(answer(other, inputs).logits[0], pruned.logits[0])


def in_a_thread(change: Callable[[Any], Any], model: Any) -> None:
    thread = threading.Thread(target=change, args=[model])
    thread.start()
    thread.join()


def here(change: Callable[[Any], Any], model: Any) -> None:
    """Make the change in this thread, as a user's hook may."""
    change(model)


def test_threads_do_not_see_each_other(llava: Any) -> None:
    """Each thread prunes its own forward; `handle.report` is the report of the last one."""
    prompts = [prompt([1], seed=seed, texts=[3 + seed]) for seed in range(4)]
    with tokenprune.patch(llava, STRATEGY) as handle:
        alone = [answer(llava, inputs).sequences for inputs in prompts]
        with ThreadPoolExecutor(4) as pool:
            for _ in range(5):
                together = pool.map(lambda inputs: answer(llava, inputs).sequences, prompts)
                assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
        assert handle.report.n_kept == 9


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("part", ["layers.0.self_attn", "layers.1", "norm"])
def test_a_patch_that_is_removed_while_another_thread_answers(llava: Any, part: str, step: int) -> None:
    """Its hook that returns the pruned cache goes too, so the next tokens would see each other at wrong positions."""
    handle, called = tokenprune.patch(llava, STRATEGY), []

    def remove(*_: Any) -> None:
        called.append(part)
        if len(called) == step + 1:
            in_a_thread(lambda _: handle.remove(), llava)

    hook = llava.model.language_model.get_submodule(part).register_forward_pre_hook(remove)
    try:
        with pytest.raises(tokenprune.PruningError, match=r"prompt.*, and the model .* is not patched"):
            answer(llava, prompt([1, 2]))
    finally:
        hook.remove()
    assert n_logits(llava, prompt([1])) == WHOLE


def test_a_patch_that_is_removed_while_it_selects(llava: Any) -> None:
    """The language model is about to fill a pruned cache, but the hook that would return the cache is gone."""

    @dataclass(frozen=True)
    class Removing(Grid):
        def select(self, tokens: VisualTokens) -> Selection:
            in_a_thread(tokenprune.unpatch, llava)
            return super().select(tokens)

    tokenprune.patch(llava, Removing(keep=4))
    with pytest.raises(tokenprune.PruningError, match=r"prompt.*, and the model .* is not patched"):
        answer(llava, prompt([1, 2]))
    assert n_logits(llava, prompt([1])) == WHOLE


def test_a_patch_that_is_replaced_while_another_thread_answers(llava: Any) -> None:
    """The answer continues as it began, even when the first patch is removed."""
    first, inputs, later = tokenprune.patch(llava, STRATEGY), prompt([1, 2]), []
    expected = answer(llava, inputs).sequences

    def replace(model: Any) -> None:
        later.append(tokenprune.patch(model, Grid(keep=4)))
        first.remove()

    def once(*_: Any) -> None:
        hook.remove()
        in_a_thread(replace, llava)

    hook = llava.model.language_model.layers[1].register_forward_pre_hook(once)
    assert torch.equal(answer(llava, inputs).sequences, expected)
    assert n_logits(llava, prompt([1])) == 10
    later[0].remove()


ENCODED_BEFORE = pytest.mark.skipif(
    not ENCODES_FIRST, reason="this transformers does not encode images before the call"
)


@pytest.mark.parametrize(
    ("part", "ask"),
    [
        ("vision_tower", answer),
        ("vision_tower", n_logits),
        ("multi_modal_projector", n_logits),
        ("", n_logits),  # it already knows which tokens are visual
        pytest.param("language_model.embed_tokens", answer, marks=ENCODED_BEFORE),
    ],
)
@pytest.mark.parametrize("change", [tokenprune.unpatch, lambda model: tokenprune.patch(model, Grid(keep=4))])
@pytest.mark.parametrize("run", [in_a_thread, here])
def test_a_patch_that_goes_while_images_are_encoded(llava: Any, run: Any, change: Any, part: str, ask: Any) -> None:
    """Hooks added after the call began know nothing about its images, which would silently stay unpruned."""
    tokenprune.patch(llava, STRATEGY)

    def once(*_: Any) -> None:
        hook.remove()
        run(change, llava)

    hook = llava.model.get_submodule(part).register_forward_pre_hook(once)
    try:
        with pytest.raises(tokenprune.PruningError, match=GONE):
            ask(llava, prompt([1]))
        assert n_logits(llava, prompt([1])) == (WHOLE if change is tokenprune.unpatch else 10)
    finally:
        tokenprune.unpatch(llava)


@pytest.mark.parametrize("part", ["norm", "layers.0", "layers.2", "layers.4"])
@pytest.mark.parametrize("change", [tokenprune.unpatch, lambda model: tokenprune.patch(model, Grid(keep=4))])
@pytest.mark.parametrize("run", [in_a_thread, here])
def test_a_patch_that_goes_between_decoder_layers(run: Any, change: Any, part: str) -> None:
    """The remaining stages would silently be left out, and layers would get arguments for more tokens than they
    have."""
    model, inputs = model_of(), prompt([1])
    tokenprune.patch(model, Staged())
    pruned = n_logits(model, inputs)

    def once(*_: Any) -> None:
        hook.remove()
        run(change, model)

    hook = model.model.language_model.get_submodule(part).register_forward_pre_hook(once)
    if part == "norm" and run is in_a_thread:  # after the last stage
        assert n_logits(model, inputs) == pruned
    else:
        with pytest.raises(tokenprune.PruningError, match=GONE):
            n_logits(model, inputs)


def test_threads_patch_one_model(llava: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take turns: overriding another thread's half-made patch would restore that half on removal."""
    register, running, most = VisionRecorder.register, [], []

    def slowly(self: VisionRecorder, handles: Any) -> Any:
        running.append(self)
        most.append(len(running))
        time.sleep(0.01)  # the other threads' turn
        running.remove(self)
        return register(self, handles)

    monkeypatch.setattr(VisionRecorder, "register", slowly)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda keep: tokenprune.patch(llava, Grid(keep=keep)).remove(), range(1, 9)))
    assert max(most) == 1
    for module in llava.modules():
        assert not any(type(value).__module__.startswith("tokenprune") for value in vars(module).values())
