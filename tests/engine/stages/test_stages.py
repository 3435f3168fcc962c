"""In-LLM pruning against the exact oracle: layers after a stage do not see what it dropped."""

from dataclasses import dataclass
from itertools import product

import pytest
import torch
from engine.stages.test_skipping import GuidedAndSkipping, Skipping, StagedAndSkipping
from engine.stages.test_stage_selections import Masses
from helpers.contract.modes import MODES, STEPS
from helpers.contract.oracle import assert_close
from helpers.families import FAMILIES
from helpers.families.base import ENCODES_FIRST
from helpers.models.staged import FAMILY, LAYERS, STAGES, Ahead, Guided, Staged, expected, model_of
from helpers.tiny import CACHE, prompt
from torch import Tensor

import tokenprune
from tokenprune import PruningError, Random, Selection, SettingError, Strategy, UnsupportedError
from tokenprune.selection import Merge
from tokenprune.strategy import Stage, StagedStrategy
from tokenprune.tokens import VisualTokens

#: What the matrix does not run in every mode: rows that keep different numbers, and skipped layers.
STRATEGIES = [Staged(ragged=True), Masses(), Skipping(), StagedAndSkipping(ragged=True), GuidedAndSkipping()]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: str, attention: str, strategy: StagedStrategy) -> None:
    model, per_row = model_of(attention), [1, 1]
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        run = MODES[mode](FAMILY, model, prompt(per_row, texts=[4, 4], seed=5), per_row)
    report, whole = handle.report, run.whole(FAMILY)
    assert report.skipped == strategy.skipped_layers(LAYERS)
    kept = {len(image.kept_at(1)) for image in report.images}
    assert len(kept) > 1 or not (isinstance(strategy, Masses) or getattr(strategy, "ragged", False))
    logits = expected(model, whole["input_ids"], whole["attention_mask"], run.inputs["pixel_values"], [report])
    # Without a cache, every step selects anew, and the report describes the last one.
    steps = slice(-1 if mode == "uncached" and strategy.needs else None, None)
    assert_close(run.logits[:, steps], logits[:, -STEPS - 1 : -1][:, steps])


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
    with pytest.raises(SettingError, match=r"kept_at\(layer=-1\).*count from 0. Write kept_at\(n_layers"):
        image.kept_at(-1)
    for stage in plan:
        best = image.scores.topk(min(stage.budget(36), image.n_kept)).indices
        assert image.kept_at(stage.layer).tolist() == best.sort().values.tolist()


@pytest.mark.parametrize(
    ("strategy", "part"),
    [
        (Guided(), "0"),  # shows what enters
        (Guided(), "1"),  # begins a stage
        (Guided(), "0.self_attn"),  # the overrides of its projections still work
        (Ahead(), "1.self_attn"),
        (Staged(plan=(Stage(1, 0.5), Stage(2, 0.3))), "1"),
    ],
    ids=str,
)
def test_a_forward_that_was_replaced(strategy: Strategy, part: str) -> None:
    model = model_of()
    with tokenprune.patch(model, strategy), torch.no_grad():
        del vars(model.model.language_model.layers.get_submodule(part))["forward"]
        with pytest.raises(PruningError, match=rf"^decoder layer {part[0]} was called past this patch"):
            model(**prompt([1]))


def test_a_model_that_cannot_be_pruned_in_stages() -> None:
    said = r"only pruning before the language model is supported.* such as VFlowOpt\(progressive=False\)"
    with pytest.raises(UnsupportedError, match=said):
        tokenprune.patch(FAMILIES["gemma3"].build(n_layers=4), "vflowopt")


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
        mean = (clean[row][merge.sources] * merge.weights[:, None]).sum(0)
        torch.testing.assert_close(seen[0][row, 4], mean)
        torch.testing.assert_close(seen[0][row, 5 : 4 + image.n_kept], clean[row][image.kept[1:]])
