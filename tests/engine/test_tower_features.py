"""Features before the projector: what is recorded, where models offer it, and what strategies compare elsewhere."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.tiny import TOWERS, prompt, tiny_llava

import tokenprune
from tokenprune import SCOPE, Nuwa, PruneSID, PruningError, UnsupportedError, VisPruner
from tokenprune.adapters import adapter_for

STATISTICS = {"tower_features", "late_features"}
#: Tiny models whose projector maps every token by itself. OneVision's resizes tokens afterwards.
TOKENWISE = ("llava-clip", "llava-pixtral", "llava-next", "vip-llava", "paligemma")


def run(family: Any, model: Any) -> None:
    with torch.no_grad():
        model(**family.prompt([1, 2]))


@pytest.mark.parametrize("name", TOKENWISE)
def test_projected_they_are_the_features(name: str) -> None:
    family = FAMILIES[name]
    model = family.build()
    with tokenprune.probe(model, needs={"tower_features"}) as seen:
        run(family, model)
        found = [image.tokens for image in seen.images]
    for tokens in found:
        patches = ~tokens.is_newline
        with torch.no_grad():
            projected = model.model.multi_modal_projector(tokens.tower_features[None])[0]
        ratio = (tokens.features[patches] / projected[patches]).median()  # PaliGemma scales its features
        torch.testing.assert_close(projected[patches] * ratio, tokens.features[patches], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tower", TOWERS)
def test_late_features_are_the_mean_of_the_last_third(tower: str) -> None:
    model, inputs = tiny_llava(tower), prompt([1, 1])
    with torch.no_grad():
        states = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
        with tokenprune.probe(model, needs={"late_features"}) as seen:
            model(**inputs)
            found = [image.tokens.late_features for image in seen.images]
    n_layers, n_prefix = len(states) - 1, int(tower != "siglip")
    expected = torch.stack(states[n_layers - n_layers // 3 :]).mean(0)[:, n_prefix:]
    assert n_layers >= 3, "a mean of several"
    torch.testing.assert_close(torch.stack(found), expected)


@pytest.mark.parametrize("strategy", [SCOPE, VisPruner, PruneSID, Nuwa])
def test_models_without_them_compare_the_projected_ones(strategy: Any) -> None:
    family = FAMILIES["qwen2-vl"]
    model = family.build()
    assert not STATISTICS & adapter_for(model).offers
    reports = []
    for features in ("tower", "projected"):
        with tokenprune.patch(model, strategy(keep_ratio=0.3, features=features)) as handle:
            run(family, model)
        reports.append([image.kept.tolist() for image in handle.report.images])
    assert reports[0] == reports[1]
    with pytest.raises(UnsupportedError, match="before the projector"):
        tokenprune.probe(model, needs={"tower_features"})


@pytest.mark.parametrize("strategy", [SCOPE, VisPruner, PruneSID])
def test_by_default_the_towers_are_compared(strategy: Any) -> None:
    """As if they were the features of the tokens: the features themselves are then of no account."""
    model, inputs = tiny_llava("clip"), prompt([1])
    with torch.no_grad(), tokenprune.probe(model, needs={"vision_attention", "tower_features"}) as seen:
        model(**inputs)
        tokens = seen.images[0].tokens
    projected = strategy(keep_ratio=0.5, features="projected").select(tokens).kept.tolist()
    tower = replace(tokens, features=tokens.tower_features)
    expected = strategy(keep_ratio=0.5, features="projected").select(tower).kept.tolist()
    with torch.no_grad(), tokenprune.patch(model, strategy(keep_ratio=0.5)) as handle:
        model(**inputs)
    assert handle.report.images[0].kept.tolist() == expected
    assert expected != projected


def test_of_tiles_one_by_one() -> None:
    family = FAMILIES["llava-next"]
    model = family.build()
    with tokenprune.patch(model, SCOPE(keep_ratio=0.3, budget_per="tile")) as handle:
        run(family, model)
    assert handle.report.n_kept < handle.report.n_visual


def test_a_projector_that_was_replaced_is_noticed() -> None:
    model, inputs = tiny_llava("clip"), prompt([1])
    with torch.no_grad(), tokenprune.patch(model, SCOPE()):
        model.model.multi_modal_projector = torch.nn.Sequential(model.model.multi_modal_projector)
        with pytest.raises(PruningError, match="modules that the strategy reads were replaced"):
            model(**inputs)
