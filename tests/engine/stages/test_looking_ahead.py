"""Stages that look ahead, against the unpatched model's eager attention in the layer that they are about to enter, on
the states that enter it."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from helpers.contract.cells import CASES, served
from helpers.contract.modes import MODES, STEPS
from helpers.contract.oracle import as_reported, assert_close, dropped_columns, placed
from helpers.families import FAMILIES, Family
from helpers.models.staged import FAMILY, Ahead, Guided, expected, model_of
from helpers.tiny import CACHE, prompt
from torch import Tensor

import tokenprune
from tokenprune import PruningError, Selection, SettingError
from tokenprune.adapters import adapter_for
from tokenprune.engine.pruner import Pruner
from tokenprune.strategy import Stage
from tokenprune.tokens import StageTokens


def assert_ranked_by_the_layer_ahead(
    family: Family, eager: Any, inputs: dict[str, Any], report: tokenprune.Report, ids: Tensor | None = None
) -> None:
    """Check every stage's scores. The oracle's forward drops what was dropped before the stage, and nothing there."""
    real, tokens = inputs["attention_mask"], inputs["input_ids"]
    for number, stage in enumerate(report.images[0].stages):
        until = tokenprune.Report([replace(image, stages=image.stages[:number]) for image in report.images])
        seen: list[Tensor] = []
        attention: Any = adapter_for(eager).layers[stage.layer].self_attn
        hook = attention.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output[1].mean(1)))
        with as_reported(eager, tokens, [until]):
            family.oracle(eager, inputs, dropped_columns(tokens, [until]), ids)
        hook.remove()
        for row, columns, image in placed(tokens, [report]):
            left, kept, scores = image.kept_at(stage.layer - 1), image.stages[number].kept, image.stages[number].scores
            if len(kept) == len(left):  # then nothing is ranked
                continue
            own = seen[0][row, int(real[row].nonzero()[-1]), columns[left]]
            torch.testing.assert_close(scores[left], own, atol=1e-6, rtol=1e-4)
            assert kept.tolist() == sorted(left[own.argsort(descending=True)[: len(kept)]].tolist())


@pytest.mark.parametrize("name", ["pyramiddrop", "adatoken"])
@pytest.mark.parametrize("case", CASES)
def test_every_family(case: str, name: str) -> None:
    family, model = served(name, case)
    inputs = family.prompt([2, 1], texts=[3, 5], padding="left")
    with torch.no_grad(), tokenprune.patch(model, name, keep_ratio=0.5) as handle:
        model(**inputs, position_ids=family.position_ids(model, inputs))
    assert_ranked_by_the_layer_ahead(family, family.build("eager", n_layers=4), inputs, handle.report)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize("case", ["llava-clip", "qwen2.5-vl", "qwen3-vl"])
def test_rows_of_unequal_length(case: str, position_ids: Any, ragged: bool, padding: str) -> None:
    """With holes between what is left; also where tokens were dropped before the language model, and renumbered."""
    family = FAMILIES[case]
    model, eager = (family.build(attention, n_layers=5) for attention in ("sdpa", "eager"))
    inputs = family.prompt([1, 2], texts=[3, 5], padding=padding)
    with torch.no_grad(), tokenprune.patch(model, Ahead(ragged=ragged), position_ids=position_ids) as handle:
        model(**inputs, position_ids=family.position_ids(model, inputs))
    dropped = dropped_columns(inputs["input_ids"], [handle.report])
    ids = family.compact_ids(model, inputs, dropped) if position_ids == "compact" else None
    assert_ranked_by_the_layer_ahead(family, eager, inputs, handle.report, ids)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "uncached"])  # which selects anew at every step
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_mode(mode: str, attention: str) -> None:
    model, per_row = model_of(attention), [1, 1] if mode == "sampled" else [1, 2]
    with torch.no_grad(), tokenprune.patch(model, Ahead(ragged=True)) as handle:
        run = MODES[mode](FAMILY, model, prompt(per_row, seed=5), per_row)
    whole = run.whole(FAMILY)
    logits = expected(model, whole["input_ids"], whole["attention_mask"], run.inputs["pixel_values"], [handle.report])
    assert_close(run.logits, logits[:, -STEPS - 1 : -1])
    if mode in ("greedy", "loop", "static"):
        assert_ranked_by_the_layer_ahead(FAMILY, model_of("eager"), run.inputs, handle.report)


@pytest.mark.parametrize("number", [0, 1])
def test_in_a_later_turn(number: int) -> None:
    """Layers hold different numbers of the first turn's tokens, which the softmax leaves out. The reference is a model
    that enters the layer with all tokens that it had before."""
    plan = (Stage(1, 0.5, looks_ahead=True), Stage(3, 0.25, looks_ahead=True))
    entered = (*plan[:number], replace(plan[number], keep_ratio=(1.0, 0.5)[number]))
    found, whole = [
        turns(FAMILY.build("eager"), Ahead(keep_ratio=1.0, plan=one), plan[number].layer) for one in (plan, entered)
    ]
    n_left = (36, 18)[number]
    among = whole[1][:, -1, -n_left - 6 :]
    assert among.shape[-1] < whole[1].shape[-1]
    own = (among / among.sum(-1, keepdim=True)).mean(0)[3:-3]
    scores = found[0].stages[number].scores
    torch.testing.assert_close(scores[found[0].kept_at(plan[number].layer - 1)], own)


def turns(model: Any, strategy: Ahead, layer: int) -> tuple[tokenprune.ImageReport, Tensor]:
    """Return the report of a second image in a conversation, and the attention of a layer in its turn."""
    maps: list[Tensor] = []
    attention = model.model.language_model.layers[layer].self_attn
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        cache = model(**prompt([1], texts=[5], seed=3), use_cache=True)[CACHE]
        attention.register_forward_hook(lambda module, args, output: maps.append(output[1][0]))
        model(**{**prompt([1]), "attention_mask": None}, **{CACHE: cache})
    return handle.report.images[0], maps[-1]


class SkipsTwo:
    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        return (2,)


def test_the_layer_ahead_must_run() -> None:
    @dataclass(frozen=True)
    class Skipping(SkipsTwo, Guided):
        plan: tuple[Stage, ...] = (Stage(2, 0.5, looks_ahead=True),)

    with pytest.raises(SettingError, match="decoder layer 2 provides the attention that the strategy reads"):
        tokenprune.patch(model_of(), Skipping())


def test_a_skipped_layer_before_the_layer_ahead() -> None:
    """It holds nothing of the first turn."""

    @dataclass(frozen=True)
    class Skipping(SkipsTwo, Ahead):
        plan: tuple[Stage, ...] = (Stage(2, 0.5), Stage(3, 0.4, looks_ahead=True))

    model = model_of()
    with torch.no_grad(), tokenprune.patch(model, Skipping()) as handle:
        cache = model(**prompt([1], texts=[5], seed=3), use_cache=True)[CACHE]
        model(**prompt([1]) | {"attention_mask": None}, **{CACHE: cache})
    assert len(handle.report.images[0].kept_at(3)) == 14


@pytest.mark.parametrize("read", ["from_text", "from_all"])
def test_only_the_last_token_looks_ahead(read: str) -> None:
    @dataclass(frozen=True)
    class All(Guided):
        plan: tuple[Stage, ...] = (Stage(2, 0.5, looks_ahead=True),)

        def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
            return Selection.best(getattr(tokens.attention, read)(), stage.budget(tokens.n_visual))

    with (
        torch.no_grad(),
        tokenprune.patch(model := model_of(), All()),
        pytest.raises(PruningError, match=r"All.select_at: of a decoder layer about to be entered, only the last"),
    ):
        model(**prompt([1]))


def test_stages_that_look_back_and_ahead_at_one_layer() -> None:
    """Each gets its own run of the layer."""
    plan = (Stage(2, 0.5, looks_ahead=True), Stage(3, 0.25), Stage(4, 0.1, looks_ahead=True))
    model, inputs, seen = model_of(), prompt([1, 2]), []
    with torch.no_grad(), tokenprune.patch(model, Ahead(keep_ratio=1.0, plan=plan)) as handle:
        model(**inputs)
    eager = model_of("eager")
    hook = eager.model.language_model.layers[2].self_attn.register_forward_hook(
        lambda module, args, output: seen.append(output[1].mean(1))
    )
    with as_reported(eager, inputs["input_ids"], [handle.report]):
        FAMILY.oracle(eager, inputs, dropped_columns(inputs["input_ids"], [handle.report]))
    hook.remove()
    for row, columns, image in placed(inputs["input_ids"], [handle.report]):
        scores = image.stages[1].scores
        left, last = image.kept_at(2), int(inputs["attention_mask"][row].nonzero()[-1])
        torch.testing.assert_close(scores[left], seen[0][row, last, columns[left]], atol=1e-6, rtol=1e-4)


def test_what_a_look_ahead_computes() -> None:
    """Of the queries one in each row, all keys, and nothing else, before the layer itself runs on what is left, of
    which nothing is held."""
    model, inputs = model_of(), prompt([1, 2])
    computed: list[tuple[str, int]] = []
    held: list[dict[int, Any]] = []
    layer = model.model.language_model.layers[1]
    parts = {name: getattr(layer.self_attn, name) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    for name, module in {**parts, "mlp": layer.mlp}.items():
        module.forward = lambda states, name=name, run=module.forward: (
            computed.append((name, states.shape[1])) or run(states)
        )
    with torch.no_grad(), tokenprune.patch(model, Ahead(keep_ratio=1.0, plan=(Stage(1, 0.25, looks_ahead=True),))):
        pruner: Any = Pruner.on(model)
        after = model.model.language_model.layers[2].register_forward_pre_hook(
            lambda *_: held.append(dict(pruner._context.forward.stages.captured))
        )
        model(**inputs)
    after.remove()
    for module in (*parts.values(), layer.mlp):
        del vars(module)["forward"]
    assert held == [{}]
    whole = inputs["input_ids"].shape[1]
    left = whole - 2 * 27
    ran = [(name, left) for name in (*parts, "mlp")]
    assert computed == [("q_proj", 1), ("k_proj", whole), *ran]
