"""In-LLM pruning against the exact oracle: layers after a stage do not see what it dropped."""

from dataclasses import dataclass
from itertools import product

import pytest
import torch
from helpers.contract.cells import CASES
from helpers.contract.modes import MODES, STEPS, run_cell
from helpers.contract.oracle import as_reported, assert_close, dropped_columns
from helpers.families import FAMILIES
from helpers.families.base import ENCODES_FIRST
from helpers.models.staged import FAMILY, LAYERS, STAGES, Guided, Staged, expected, model_of
from helpers.tiny import CACHE, IMAGE, prompt
from torch import Tensor

import tokenprune
from tokenprune import PruningError, Random, Selection, SettingError, UnsupportedError
from tokenprune.adapters import adapter_for
from tokenprune.selection import Merge
from tokenprune.sequence.masks import FULL
from tokenprune.strategy import Stage
from tokenprune.tokens import VisualTokens


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: str, attention: str, ragged: bool) -> None:
    model, per_row = model_of(attention), [1, 1] if ragged else [1, 2]
    inputs = prompt(per_row, texts=[4, 4] if ragged else None, seed=5)
    with torch.no_grad(), tokenprune.patch(model, Staged(ragged=ragged)) as handle:
        run = MODES[mode](FAMILY, model, inputs, per_row)
    report = handle.report
    if not ragged:
        assert [
            (len(image.kept_at(0)), len(image.kept_at(2)), len(image.kept_at(4))) for image in report.images[:1]
        ] == [(22, 14, 7)]
        with pytest.raises(
            SettingError, match=r"kept_at\(layer=-1\): decoder layers count from 0. Write kept_at\(n_la"
        ):
            report.images[0].kept_at(-1)
    ids = torch.cat([run.inputs["input_ids"], run.answers], 1)
    real = torch.cat([run.inputs["attention_mask"], torch.ones_like(run.answers)], 1)
    logits = expected(model, ids, real, run.inputs["pixel_values"], [report])
    assert_close(run.logits, logits[:, -STEPS - 1 : -1])


def test_layers_cache_what_their_stage_keeps() -> None:
    model, inputs = model_of(), prompt([1])
    with torch.no_grad(), tokenprune.patch(model, Staged()):
        out = model.generate(**inputs, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    n_text = int(inputs["attention_mask"].sum()) - 36
    lengths = [layer.keys.shape[-2] - n_text - 2 for layer in out[CACHE].layers]
    assert lengths == [22, 14, 14, 7, 7]


@pytest.mark.parametrize("ragged", [False, True])
def test_a_conversation(ragged: bool) -> None:
    """Text, an image in a later turn, and a crop of the last answer, all in one cache."""
    model = model_of()
    first, second, third = (prompt([n] * 2, texts=[4, 4], seed=seed) for n, seed in ((1, 5), (0, 6), (1, 7)))
    reports, parts, images = [], [], []
    cache = None
    with torch.no_grad(), tokenprune.patch(model, Staged(ragged=ragged)) as handle:
        for turn in (first, second, third, second):
            parts.append(turn["input_ids"])
            real = torch.ones_like(torch.cat(parts, 1))
            out = model(**{**turn, "attention_mask": real}, **{CACHE: cache}, use_cache=True)
            cache = out[CACHE]
            if "pixel_values" in turn:
                reports.append(handle.report)
                images.append(turn["pixel_values"])
        cache.crop(-3)
        parts[-1] = parts[-1][:, :-3]
        new = second["input_ids"][:, :5]
        parts.append(new)
        real = torch.ones_like(torch.cat(parts, 1))
        last = model(input_ids=new, attention_mask=real, **{CACHE: cache}).logits[:, -1]
    ids = torch.cat(parts, 1)
    pixels = torch.stack(images, 1).flatten(0, 1)
    assert_close(last, expected(model, ids, real, pixels, reports)[:, -1])


# Older transformers repeats an image for each beam, so it has several numbers, which `ragged` depends on.
@pytest.mark.parametrize("ragged", [False, True] if ENCODES_FIRST else [False])
def test_beams(ragged: bool) -> None:
    model, inputs = model_of(), prompt([1, 1], texts=[4, 4], seed=5)
    search = {"num_beams": 3, "num_return_sequences": 3, "do_sample": False, "max_new_tokens": 6}
    with torch.no_grad(), tokenprune.patch(model, Staged(ragged=ragged)):
        cached, uncached = (model.generate(**inputs, **search, use_cache=use) for use in (True, False))
    assert torch.equal(cached, uncached)


@pytest.mark.parametrize("plan", [STAGES, (Stage(1, 1.0), Stage(3, 0.2))], ids=str)
def test_a_stage_keeps_the_highest_scores(plan: tuple[Stage, ...]) -> None:
    """Also after a stage with nothing to select."""
    model = model_of()
    with torch.no_grad(), tokenprune.patch(model, Staged(plan=plan)) as handle:
        model(**prompt([1]))
    (image,) = handle.report.images
    assert image.scores is not None
    for stage in plan:
        best = image.scores.topk(min(stage.budget(36), image.n_kept)).indices
        assert image.kept_at(stage.layer).tolist() == best.sort().values.tolist()


def test_rows_and_crops_of_a_staged_cache() -> None:
    """Rows with different holes are reordered, and the end of the prompt itself is cropped."""
    model, inputs = model_of(), prompt([1, 1], texts=[4, 4], seed=5)
    length, new = inputs["input_ids"].shape[1], torch.tensor([[5, 7], [9, 11]])
    with torch.no_grad(), tokenprune.patch(model, Staged(ragged=True)) as handle:
        cache = model(**inputs, use_cache=True)[CACHE]
        cache.crop(-2)
        cache.reorder_cache(torch.tensor([1, 0]))
        given = {"input_ids": new.flip(0), "attention_mask": torch.ones(2, length).long()}
        logits = model(**given, **{CACHE: cache}).logits.flip(0)
    ids = torch.cat([inputs["input_ids"][:, :-2], new], 1)
    whole = expected(model, ids, torch.ones_like(ids), inputs["pixel_values"], [handle.report])
    assert_close(logits, whole[:, -2:])


def test_keeping_all_is_bitwise_the_unpatched_model() -> None:
    model, inputs = model_of(), prompt([1, 2])
    with torch.no_grad():
        logits = model(**inputs).logits
        with tokenprune.patch(model, Staged(keep_ratio=1.0, plan=(Stage(2, 1.0),))):
            assert torch.equal(model(**inputs).logits, logits)


@pytest.mark.parametrize("mode", MODES)
def test_pruning_in_the_language_model_only(mode: str) -> None:
    """All tokens enter, as in FastV."""
    model, inputs = model_of(), prompt([1, 2])
    with torch.no_grad(), tokenprune.patch(model, Staged(keep_ratio=1.0, plan=(Stage(2, 0.25),))) as handle:
        run = MODES[mode](FAMILY, model, inputs, [1, 2])
    ids = torch.cat([run.inputs["input_ids"], run.answers], 1)
    real = torch.cat([run.inputs["attention_mask"], torch.ones_like(run.answers)], 1)
    assert {(len(image.kept_at(1)), len(image.kept_at(2))) for image in handle.report.images} == {(36, 9)}
    logits = expected(model, ids, real, run.inputs["pixel_values"], [handle.report])
    assert_close(run.logits, logits[:, -STEPS - 1 : -1])


@pytest.mark.parametrize("padding", ["left", "right"])
def test_text_attention_is_that_of_the_eager_map(padding: str) -> None:
    """The unpatched model with eager attention returns the map whose last row is the first stage's score. The map of
    the second stage is that of the oracle's forward, in which dropped tokens are masked."""
    model, inputs = model_of("eager"), prompt([1, 2], padding=padding)
    with torch.no_grad(), tokenprune.patch(model_of(), Guided()) as handle:
        handle.model(**inputs)
    real = inputs["attention_mask"]
    with torch.no_grad(), as_reported(model, inputs["input_ids"], [handle.report]):
        ids = (real.cumsum(1) - 1).clamp(min=0)
        maps = model(**inputs, position_ids=ids, output_attentions=True).attentions
    for stage, before in zip(STAGES, (Stage(0, 1.0), STAGES[0]), strict=True):
        seen = maps[stage.layer - 1].mean(1)
        columns = [(row == IMAGE).nonzero()[:, 0] for row in inputs["input_ids"]]
        for image in handle.report.images:
            mine, columns[image.row] = columns[image.row][: image.n_visual], columns[image.row][image.n_visual :]
            last = int(real[image.row].nonzero()[-1])
            row = seen[image.row, last, mine]
            had = image.kept_at(before.layer)
            best = row[had].topk(stage.budget(image.n_visual)).indices
            assert image.kept_at(stage.layer).tolist() == had[best].sort().values.tolist()


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "uncached"])  # which selects anew at every step
def test_every_mode_guided_by_the_text(mode: str) -> None:
    model, per_row = model_of(), [1, 2]
    with torch.no_grad(), tokenprune.patch(model, Guided()) as handle:
        run = MODES[mode](FAMILY, model, prompt(per_row, seed=5), per_row)
    ids = torch.cat([run.inputs["input_ids"], run.answers], 1)
    real = torch.cat([run.inputs["attention_mask"], torch.ones_like(run.answers)], 1)
    logits = expected(model, ids, real, run.inputs["pixel_values"], [handle.report])
    assert_close(run.logits, logits[:, -STEPS - 1 : -1])


def test_remove_uncovers_the_layers() -> None:
    model = model_of()
    handle = tokenprune.patch(model, Staged())
    assert any("forward" in vars(layer) for layer in model.model.language_model.layers)
    handle.remove()
    assert not any("forward" in vars(layer) for layer in model.model.language_model.layers)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_whose_forward_was_replaced(layer: int) -> None:
    """The first layer shows what enters, and the second begins a stage."""
    model = model_of()
    with tokenprune.patch(model, Guided()), torch.no_grad():
        del vars(model.model.language_model.layers[layer])["forward"]
        with pytest.raises(PruningError, match=rf"^decoder layer {layer} was called past this patch"):
            model(**prompt([1]))


def test_a_stage_of_one_layer_whose_forward_was_replaced() -> None:
    model = model_of()
    with tokenprune.patch(model, Staged(plan=(Stage(1, 0.5), Stage(2, 0.3)))), torch.no_grad():
        del vars(model.model.language_model.layers[1])["forward"]
        with pytest.raises(PruningError, match=r"^decoder layer 1 was called past this patch"):
            model(**prompt([1]))


def test_an_attention_module_whose_forward_was_replaced() -> None:
    """The overrides of its projections still work."""
    model = model_of()
    with tokenprune.patch(model, Guided()), torch.no_grad():
        del vars(model.model.language_model.layers[0].self_attn)["forward"]
        with pytest.raises(PruningError, match=r"^decoder layer 0 was called past this patch"):
            model(**prompt([1]))


@pytest.mark.parametrize("layers", [(0,), (3, 3), (4, 2), (LAYERS,)])
def test_stages_that_cannot_be(layers: tuple[int, ...]) -> None:
    with pytest.raises(SettingError, match=r"do not ascend within 1\.\.4"):
        tokenprune.patch(model_of(), Staged(plan=tuple(Stage(layer, 0.5) for layer in layers)))


def test_another_plan_cannot_go_on() -> None:
    """Neither with an image nor with only text."""
    model, inputs = model_of(), prompt([1])
    others = [Staged(plan=(Stage(2, 0.3),)), Random(), Random(keep_ratio=1.0)]
    with torch.no_grad():
        with tokenprune.patch(model, Staged()):
            cache = model(**inputs, use_cache=True)[CACHE]
        length = inputs["input_ids"].shape[1]
        for strategy, n_images in product(others, [0, 1]):
            more = prompt([n_images], seed=3)
            more["attention_mask"] = torch.ones(1, length + more["input_ids"].shape[1]).long()
            with tokenprune.patch(model, strategy), pytest.raises(tokenprune.PruningError, match="pruned on entry to"):
                model(**more, **{CACHE: cache})
        with tokenprune.probe(model), pytest.raises(tokenprune.PruningError, match="the strategy prunes at none"):
            model(input_ids=torch.tensor([[7, 8]]), **{CACHE: cache})


@dataclass(frozen=True)
class Merging(Staged):
    """Merges every dropped token into the first kept one."""

    def select(self, tokens: VisualTokens) -> Selection:
        plain = super().select(tokens)
        lost = torch.ones(tokens.n_visual).bool()
        lost[plain.kept[1:]] = False
        sources = lost.nonzero()[:, 0]
        merge = Merge.mean(torch.zeros_like(sources), sources, torch.rand(len(sources)) + 0.1, 1)
        return Selection(plain.kept, plain.n_visual, plain.scores, merge)


def test_merged_features_enter_the_language_model() -> None:
    model, inputs = model_of(), prompt([1, 1], texts=[4, 4])
    seen: list[Tensor] = []
    with torch.no_grad():
        clean = model.model.get_image_features(inputs["pixel_values"]).pooler_output
        with tokenprune.patch(model, Merging()) as handle:
            first = model.model.language_model.layers[0]
            hook = first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
            model(**inputs)
            hook.remove()
    for row, image in enumerate(handle.report.images):
        merge = image.merged
        assert merge is not None
        mean = (clean[row][merge.sources] * merge.weights[:, None]).sum(0)
        torch.testing.assert_close(seen[0][row, 4], mean)
        torch.testing.assert_close(seen[0][row, 5 : 4 + image.n_kept], clean[row][image.kept[1:]])


@pytest.mark.parametrize("case", [case for case in CASES if case != "llava-clip"])
def test_every_family(case: str) -> None:
    family = FAMILIES[case]
    model = family.build(n_layers=4)
    adapter = adapter_for(model)
    refusal = None if {"grid", "vision_attention"} <= adapter.offers else "does not have it"
    if refusal is None and set(adapter.decoder.layers.kinds) != {FULL}:
        refusal = r"only pruning before the language model is supported.* such as VFlowOpt\(progressive=False\)"
    if refusal is not None:
        with pytest.raises(UnsupportedError, match=refusal):
            tokenprune.patch(model, "vflowopt")
        return
    with torch.no_grad(), tokenprune.patch(model, "vflowopt", keep_ratio=0.4) as handle:
        run = run_cell(family, model, "greedy", "padded")
    whole, report = run.whole(family), handle.report
    assert all(len(image.kept_at(0)) > len(image.kept_at(3)) for image in report.images)
    assert any(image.merged is not None for image in report.images)
    with as_reported(model, whole["input_ids"], [report]):
        logits = run.expected(family, model, dropped_columns(whole["input_ids"], [report]))
    assert_close(run.logits, logits)
