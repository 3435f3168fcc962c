"""Block diffusion: late-step pruning, what its steps read, and what is refused."""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close, dropped_columns
from helpers.families import DENOISING
from helpers.families.base import IMAGE
from helpers.families.denoising.base import Closed, Denoised
from helpers.tiny import tiny_llava
from torch import Tensor
from transformers import DynamicCache

import tokenprune
from tokenprune import FastV, PruningError, Random, Report, Selection, SettingError, UnsupportedError
from tokenprune.adapters.families.diffusion_gemma import DiffusionGemmaAdapter
from tokenprune.engine.denoising.canvas import CANVAS_ATTRIBUTE
from tokenprune.strategies.in_llm.late_step import LateStep
from tokenprune.strategy import Stage, StagedStrategy

pytestmark = [
    pytest.mark.skipif("diffusion-gemma" not in DENOISING, reason="an older transformers"),
    # generate marks the beginning of steps for the compiler, which imports all of the compiler
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]
STEPS, CANVAS = 4, 6


@cache
def model_of() -> Any:
    return family().build()


def family() -> Any:
    return DENOISING["diffusion-gemma"]


def late(strategy: LateStep, inputs: dict[str, Any], mode: str) -> tuple[Denoised, list[Report]]:
    """Return what a patched model computes, and its report at every step."""
    model, reports = model_of(), []
    with tokenprune.patch(model, strategy) as handle:
        hook = model.lm_head.register_forward_hook(lambda *_: reports.append(handle.report))
        done = family().denoise(model, inputs, mode)
        hook.remove()
    return done, reports


def unread(ids: Tensor, report: Report) -> Tensor:
    """Return which columns the step of a report does not read."""
    left = [image.late_steps[-1].kept for image in report.images]
    images = [
        tokenprune.ImageReport(image.row, image.modality, image.layout, kept, None, kept)
        for image, kept in zip(report.images, left, strict=True)
    ]
    return dropped_columns(ids, [Report(images)])


@pytest.mark.parametrize("mode", ["denoised", "loop"])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("steps", [1, 2, (1, 3)])
def test_late_steps_are_masked_from_then_on(steps: Any, padding: str, mode: str) -> None:
    strategy, inputs = LateStep(keep_ratio=0.3, steps=steps), family().prompt([1, 2], padding=padding)
    done, reports = late(strategy, inputs, mode)
    nothing, first = torch.zeros_like(inputs["input_ids"]).bool(), strategy.step_stages[0].step
    closed = {
        number: unread(inputs["input_ids"], report) for number, report in enumerate(reports) if number % STEPS >= first
    }
    assert_close(done.outputs, family().expected(model_of(), inputs, done, Closed([nothing] * 4, closed)))
    whole = family().expected(model_of(), inputs, done, Closed([nothing] * 4, {}))
    change = (whole - done.outputs).abs().amax((0, 2, 3))
    assert all((change[number] > 1e-3) == (number in closed) for number in range(len(reports)))
    for image in reports[-1].images:
        assert [one.step for one in image.late_steps] == [stage.step for stage in strategy.step_stages]
        assert [len(one.kept) for one in image.late_steps] == [s.budget(image.n_visual) for s in strategy.step_stages]
        kept = [set(one.kept.tolist()) for one in image.late_steps]
        assert all(later < earlier for earlier, later in pairwise(kept))
        assert image.n_kept == image.n_visual


def test_the_ranking_is_what_the_canvas_attended_to() -> None:
    inputs = family().prompt([1, 2])
    for layer in (None, 1):
        done, reports = late(LateStep(keep_ratio=0.3, steps=1, layer=layer), inputs, "loop")
        model = family().build("eager")
        with torch.no_grad():
            seen = model(**{**first_call(model, inputs), **inputs_of(done.steps[0])}, output_attentions=True)
        paid = seen.attentions[-1 if layer is None else layer].mean((1, 2))
        for image in reports[-1].images:
            (stage,) = image.late_steps
            columns = (inputs["input_ids"][image.row] == IMAGE).nonzero()[:, 0]
            row = [one for one in reports[-1].images if one.row == image.row]
            start = sum(one.n_visual for one in row[: row.index(image)])
            own = columns[start : start + image.n_visual]
            torch.testing.assert_close(stage.scores, paid[image.row, own], atol=1e-6, rtol=1e-4)


def first_call(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call that encodes a prompt and denoises once."""
    masks = family().prompt_masks(model, inputs)
    canvas = torch.ones(len(inputs["input_ids"]), CANVAS, dtype=torch.long)
    seen = torch.cat([inputs["attention_mask"], canvas], 1)
    return {**inputs, "attention_mask": masks, "decoder_attention_mask": seen}


def inputs_of(step: dict[str, Any]) -> dict[str, Any]:
    return {"decoder_input_ids": step["decoder_input_ids"]}


def test_the_report_counts_what_the_steps_read() -> None:
    """A head of width 8 takes 32 bytes per token; layers with a window hold at most 13 tokens."""
    inputs = family().prompt([1])
    length, n_visual = inputs["input_ids"].shape[1], 12
    _, reports = late(LateStep(keep=4, steps=2), inputs, "loop")
    text = model_of().config.text_config
    per_token = [
        2 * 4 * config.head_dim * config.num_key_value_heads
        for config in map(text.per_layer_config.__getitem__, range(4))
    ]
    held = [min(length, 13) if kind == "sliding_attention" else length for kind in text.layer_types]
    unpruned = sum(n * size for n, size in zip(held, per_token, strict=True))
    counts = [report.denoising for report in reports]
    assert [one.steps for one in counts if one] == [1, 2, 3, 4]
    assert [one.kv_bytes_unpruned for one in counts if one] == [unpruned * n for n in range(1, 5)]
    read = [one.kv_bytes_read for one in counts if one]
    assert read[:2] == [unpruned, 2 * unpruned]
    (image,) = reports[-1].images
    dropped = sorted({*range(n_visual)} - {*image.late_steps[0].kept.tolist()})
    columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0][dropped]
    saved = [int((columns >= length - n).sum()) for n in held]
    assert read[3] - read[2] == unpruned - sum(n * size for n, size in zip(saved, per_token, strict=True))
    assert "do not carry over" in repr(reports[-1])
    assert "4 from denoising step 2" in repr(reports[-1])
    assert "before the language model, 4 in the last denoising step" in repr(reports[-1])


def test_the_cache_stays_whole_for_the_next_canvas() -> None:
    model, inputs = model_of(), family().prompt([1])
    with tokenprune.patch(model, LateStep(keep_ratio=0.3, steps=1)):
        out = model.generate(**inputs, max_new_tokens=CANVAS)
    assert out.cache.layers[1].keys.shape[2] == inputs["input_ids"].shape[1]


def test_a_second_prompt_counts_from_the_start() -> None:
    model = model_of()
    with tokenprune.patch(model, Random(keep_ratio=0.5)) as handle:
        for images in ([1], [2]):
            model.generate(**family().prompt(images), max_new_tokens=CANVAS)
            assert handle.report.denoising.steps == STEPS
        model.generate(**family().prompt([0]), max_new_tokens=CANVAS)
        assert len(handle.report.images) == 2
        assert handle.report.denoising.steps == STEPS


def test_a_turn_that_continues_a_cache() -> None:
    """The first turn's image stays pruned, and late steps prune it further."""
    model, inputs = model_of(), family().prompt([1])
    for strategy in (Random(keep_ratio=0.5), LateStep(keep_ratio=0.5, steps=1)):
        with tokenprune.patch(model, strategy):
            first = model.generate(**inputs, max_new_tokens=CANVAS)
            n = first.cache.get_seq_length()
            assert n == inputs["input_ids"].shape[1]
            more = torch.cat([first.sequences[:, n:], torch.tensor([[5, 6, 7]])], 1)
            mask = torch.ones(1, n + more.shape[1], dtype=torch.long)
            then = model.generate(more, cache=first.cache, attention_mask=mask, max_new_tokens=CANVAS)
        assert then.cache.get_seq_length() == n + CANVAS + 3
        with pytest.raises(PruningError, match="not patched") if isinstance(strategy, Random) else nullcontext():
            model.generate(more, cache=then.cache, attention_mask=torch.ones(1, 99), max_new_tokens=CANVAS)


def test_images_of_earlier_turns_are_pruned_in_late_steps_too() -> None:
    """Unread tokens are as if masked. The report is about the last turn's image."""
    model, inputs = model_of(), family().prompt([2])
    length, border = inputs["input_ids"].shape[1], family().prompt([1])["input_ids"].shape[1]
    images = inputs.images

    def steps(dropped: Tensor | None) -> tuple[Tensor, Any]:
        """Return the outputs of two steps, the second of which does not see what is `dropped`."""
        held, logits = DynamicCache(config=model.config.text_config), None
        for begin, end, image in ((0, border, images[0]), (border, length, images[1])):
            ids, types = torch.arange(begin, end)[None], inputs["mm_token_type_ids"][:, begin:end]
            made = (model.config, torch.empty(1, end - begin, 0), torch.ones(1, end), held, ids, types)
            masks = model.model.encoder.create_masks_for_generate(*made)
            given = {"input_ids": inputs["input_ids"][:, begin:end], "position_ids": ids, **family().join([image], [1])}
            model.model.encoder(**given, attention_mask=masks, cache=held)
        for number in range(2):
            seen = torch.ones(1, length + CANVAS).long()
            if number and dropped is not None:
                seen[:, :length][dropped] = 0
            canvas = {"decoder_input_ids": torch.arange(2, 2 + CANVAS)[None], "decoder_attention_mask": seen}
            logits = model(**canvas, self_conditioning_logits=logits, cache=held).logits
        assert logits is not None
        return logits, held

    with torch.no_grad(), tokenprune.patch(model, LateStep(keep_ratio=0.3, steps=1)) as handle:
        logits, held = steps(None)
    dropped = getattr(held, CANVAS_ATTRIBUTE).dropped
    placeholders = (inputs["input_ids"] == IMAGE) & ~dropped
    assert [int(part.sum()) for part in placeholders.split([border, length - border], 1)] == [4, 5]
    with torch.no_grad():
        assert_close(logits, steps(dropped)[0])
    (image,) = handle.report.images
    kept = placeholders[0, border:].nonzero()[:, 0] - (inputs["input_ids"][0, border:] == IMAGE).nonzero()[0]
    assert image.late_steps[-1].kept.tolist() == kept.tolist()


def test_static_caches_are_refused() -> None:
    model, inputs = model_of(), family().prompt([1])
    with tokenprune.patch(model, Random(keep_ratio=0.5)), pytest.raises(PruningError, match="dynamic cache"):
        model.generate(**inputs, max_new_tokens=CANVAS, cache_implementation="static")


@pytest.mark.parametrize("layer", [0, 2, 4, -5])
def test_layers_that_do_not_see_the_whole_prompt_cannot_rank(layer: int) -> None:
    with pytest.raises(SettingError, match=r"Choose from \[1, 3\]"):
        tokenprune.patch(model_of(), LateStep(layer=layer))


def test_pruning_inside_the_language_model_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="attention of the language model"):
        tokenprune.patch(model_of(), FastV())
    with pytest.raises(UnsupportedError, match="all layers must hold the same tokens"):
        tokenprune.patch(model_of(), Inside())
    with pytest.raises(UnsupportedError, match=r"none of .* can be skipped"):
        tokenprune.patch(model_of(), Inside(skip=True))


@dataclass(frozen=True)
class Inside(StagedStrategy):
    skip: bool = False

    def select(self, tokens: Any) -> Selection:
        return Selection.all(tokens.n_visual, tokens.features.device)

    def stages(self, n_layers: int) -> Any:
        return () if self.skip else (Stage(1, 0.5),)

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        return (2,) if self.skip else ()


def test_other_models_have_no_steps() -> None:
    llava = tiny_llava()
    with pytest.raises(UnsupportedError, match="block diffusion"):
        tokenprune.patch(llava, LateStep())

    @dataclass(frozen=True)
    class Blind(LateStep):
        needs = frozenset()

    with pytest.raises(UnsupportedError, match="denoising steps"):
        tokenprune.patch(llava, Blind())


def test_a_selection_that_breaks_its_budget_is_an_error() -> None:
    @dataclass(frozen=True)
    class Greedy(LateStep):
        def select_in_step(self, stage: Any, tokens: Any) -> Selection:
            return Selection.all(tokens.n_left, tokens.left.device)

    model = model_of()
    with tokenprune.patch(model, Greedy(keep=3, steps=1)), pytest.raises(PruningError, match="its budget is 3"):
        model.generate(**family().prompt([1]), max_new_tokens=CANVAS)
    assert model.generate(**family().prompt([1]), max_new_tokens=CANVAS) is not None


def test_an_encoder_without_masks_is_refused() -> None:
    model = family().build()
    model.config.text_config.use_bidirectional_attention = "all"
    with pytest.raises(UnsupportedError, match="use_bidirectional_attention"):
        DiffusionGemmaAdapter(model)
