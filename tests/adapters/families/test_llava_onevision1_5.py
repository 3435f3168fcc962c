"""LLaVA-OneVision 1.5, whose tower has a CLS token before the patches of every frame."""

import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from torch import Tensor

import tokenprune
from tokenprune import FlowCut, Selection, ToMe
from tokenprune.adapters import adapter_for
from tokenprune.strategy import PatchStrategy, TowerStrategy
from tokenprune.tokens import PatchTokens, TowerTokens, VisualTokens

NAME = "llava-onevision1.5"


@dataclass(frozen=True)
class Third(PatchStrategy):
    """Encodes every third visual token and reads the attention of the last layer among what is encoded."""

    needs = frozenset({"kept_before_tower", "vision_attention", "cls"})

    def budget(self, n_visual: int) -> int:
        return n_visual

    def select_patches(self, tokens: PatchTokens) -> Selection:
        return Selection(torch.arange(0, tokens.n_visual, 3), tokens.n_visual)

    def select(self, tokens: VisualTokens) -> Selection:
        READ.append(tokens)
        return super().select(tokens)


READ: list[VisualTokens] = []


@pytest.mark.parametrize("video", [False, True])
def test_the_attention_of_what_is_encoded(video: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[NAME]
    model: Any = family.build("eager")
    maps: list[Tensor] = []
    last = model.model.visual.blocks[-1].attn
    code = sys.modules[type(last).__module__]
    compute = vars(code)["eager_attention_forward"]

    def watched(module: Any, *args: Any, **kwargs: Any) -> Any:
        output, weights = compute(module, *args, **kwargs)
        if module is last:
            maps.append(weights[0].mean(0))
        return output, weights

    monkeypatch.setattr(code, "eager_attention_forward", watched)
    READ.clear()
    inputs = family.prompt([0], videos_per_row=[1]) if video else family.prompt([1])
    with torch.no_grad(), tokenprune.patch(model, Third()):
        model(**inputs)
    (tokens,) = READ
    left, attention = tokens.kept_before_tower.kept, tokens.vision_attention
    received = torch.cat([one[1:, 1:].sum(0) for one in maps]).view(-1, 4).mean(1)
    by_cls = torch.cat([one[0, 1:] for one in maps]).view(-1, 4).mean(1)
    assert len(maps) == tokens.layout.n_tiles == 1 + video
    torch.testing.assert_close(attention.received()[left], received)
    torch.testing.assert_close(attention.cls_row()[left], by_cls)
    gone = torch.ones(tokens.n_visual).bool().index_fill(0, left, False)
    assert not attention.received()[gone].any()
    assert by_cls.std() > 1e-3


@pytest.mark.parametrize("strategy", [FlowCut(keep=4), ToMe(keep=4)])
def test_cls_tokens_are_never_dropped(strategy: TowerStrategy) -> None:
    """Nor do they take part in what a strategy keeps or merges."""
    model: Any = FAMILIES[NAME].build()
    states: list[int] = []
    for block in model.model.visual.blocks:
        block.register_forward_hook(lambda module, args, output: states.append(len(args[0])))
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        model(**FAMILIES[NAME].prompt([1]))
    (image,) = handle.report.images
    assert states[0] == 1 + 4 * image.n_visual
    entered = [1 + 4 * len(stage.kept) for stage in image.in_tower]
    assert states[-len(entered) :] == entered


def test_a_strategy_gets_the_cls_token_first() -> None:
    seen: list[TowerTokens] = []

    @dataclass(frozen=True)
    class Looking(TowerStrategy):
        def tower_layers(self, n_layers: int) -> tuple[int, ...]:
            return (0,)

        def select_in_tower(self, tokens: TowerTokens) -> Selection:
            seen.append(tokens)
            return Selection(torch.arange(3), tokens.n_left)

        def select(self, tokens: VisualTokens) -> Selection:
            return Selection(tokens.kept_in_tower.kept, tokens.n_visual)

    model: Any = FAMILIES[NAME].build()
    values: list[Tensor] = []
    model.model.visual.blocks[0].attn.qkv.register_forward_hook(
        lambda module, args, output: values.append(output.chunk(3, -1)[2])
    )
    with torch.no_grad(), tokenprune.patch(model, Looking()):
        model(**FAMILIES[NAME].prompt([2]))
    assert adapter_for(model).tower.n_prefix == 1
    first, second = seen
    start = values[0][[0, 1 + 4 * first.n_visual]]  # the CLS token of each image
    for tokens, expected in zip((first, second), start, strict=True):
        assert tokens.values.shape[1] == 1 + tokens.n_left  # the means of each visual token's patches
        torch.testing.assert_close(tokens.values[:, 0].flatten(), expected)


@dataclass(frozen=True)
class AllButOne(Third):
    """Encodes all visual tokens but one of the largest image."""

    needs = frozenset({"kept_before_tower"})

    def select_patches(self, tokens: PatchTokens) -> Selection:
        return Selection(torch.arange(int(tokens.n_visual > 9), tokens.n_visual), tokens.n_visual)


def test_the_towers_output_has_no_cls_tokens() -> None:
    """Its rows are those of all patches again. Where as many patches were dropped as there are CLS tokens, it is as
    long as the rows that the layers had."""
    family = FAMILIES[NAME]
    model: Any = family.build()
    merged: list[Tensor] = []
    outputs: list[Any] = []
    tower = model.model.visual
    tower.merger.register_forward_pre_hook(lambda module, args: merged.append(args[0]))
    with torch.no_grad(), tokenprune.patch(model, AllButOne()):
        tower.register_forward_hook(lambda module, args, output: outputs.append(output))
        model(**family.prompt([4], sizes=[(32, 24), (24, 24), (24, 24), (24, 24)]))
    assert merged[0].shape[0] == 4 * (12 + 3 * 9)
    torch.testing.assert_close(outputs[0].last_hidden_state, merged[0], rtol=0, atol=0)
