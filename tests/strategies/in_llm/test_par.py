"""PAR: the router's formula by hand, the layers that it skips, and how those are found."""

import copy
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import command
from helpers.families import FAMILIES
from helpers.files.evals import saved, tiny_processor
from helpers.files.search import scenes, write_scenes
from helpers.models.staged import LAYERS, model_of
from helpers.tiny import prompt
from strategies.in_llm.test_text_guided import stage_tokens
from torch.nn.functional import cosine_similarity

import tokenprune
from tokenprune import PAR, SettingError
from tokenprune.errors import UnsupportedError
from tokenprune.evals.run.costs import kv_cache_bytes
from tokenprune.evals.search.layers import block_distances, block_to_skip, layer_changes, layers_to_skip
from tokenprune.prompts import encode_chat
from tokenprune.strategy import Stage


def test_the_router_by_hand() -> None:
    """Two text tokens follow three visual ones: the first sees 1, 4, 3 and itself, the second also itself."""
    selection = PAR(keep=2).select_at(Stage(2, keep=2), stage_tokens([1, 4, 3, 2, 10], 3))
    expected = [(1 / 10 + 1 / 20) / 2, (4 / 10 + 4 / 20) / 2, (3 / 10 + 3 / 20) / 2]
    torch.testing.assert_close(selection.scores, torch.tensor(expected))
    assert selection.kept.tolist() == [1, 2]


# Layers that a model can do without.


def test_changes_are_those_of_the_hidden_states(tmp_path: Path) -> None:
    """Compared with transformers' hidden states, one question at a time. They lack the last layer's raw output."""
    model, samples = model_of(), scenes(tmp_path)
    changes = layer_changes(model, tiny_processor(), samples)
    assert not any(layer._forward_hooks for layer in model.model.language_model.layers)
    expected = torch.zeros(LAYERS - 1)
    for sample in samples:
        inputs = encode_chat(tiny_processor(), [sample.open_images()], [sample.text])
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states
        expected += torch.stack([1 - cosine_similarity(a, b, dim=-1).mean() for a, b in pairwise(states[:-1])])
    torch.testing.assert_close(torch.tensor(changes[:-1]), expected / len(samples))


def test_the_least_changing_layers_between_the_ends() -> None:
    changes = [0.0, 0.0, 0.5, 0.2, 0.4, 0.3, 0.0, 0.0]
    assert [layers_to_skip(changes, n) for n in range(4)] == [(), (3,), (3, 5), (3, 4, 5)]
    with pytest.raises(SettingError, match="ask for 0 to 4"):
        layers_to_skip(changes, 5)
    with pytest.raises(SettingError, match="no questions"):
        layer_changes(model_of(), tiny_processor(), [])


def test_blocks_turn_the_last_token(tmp_path: Path) -> None:
    """Compared with transformers' hidden states. A block whose layers add nothing rotates by 0, and is the one to
    skip."""
    model, samples = copy.deepcopy(model_of()), scenes(tmp_path)
    distances = block_distances(model, tiny_processor(), samples, 2)
    assert len(distances) == LAYERS - 1
    expected = torch.zeros(LAYERS - 2)  # the last state that transformers returns is normalised
    for sample in samples:
        inputs = encode_chat(tiny_processor(), [sample.open_images()], [sample.text])
        with torch.no_grad():
            states = torch.stack(model(**inputs, output_hidden_states=True).hidden_states[:-1])[:, 0, -1]
        expected += cosine_similarity(states[:-2], states[2:], dim=-1).arccos() / torch.pi
    torch.testing.assert_close(torch.tensor(distances[:-1]), expected / len(samples), atol=1e-4, rtol=0)
    with torch.no_grad():
        layer = model.model.language_model.layers[2]
        for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
            part.weight.zero_()
    assert block_distances(model, tiny_processor(), samples, 1)[2] == pytest.approx(0, abs=1e-6)
    with pytest.raises(SettingError, match="no questions"):
        block_distances(model, tiny_processor(), [], 1)
    with pytest.raises(SettingError, match="a block of 9 of"):
        block_distances(model, tiny_processor(), samples, 9)


@pytest.mark.parametrize("measure", [layer_changes, partial(block_distances, n_skipped=1)])
def test_models_in_which_no_layer_can_be_skipped(measure: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"PAR\(.* needs attention of the language model's layers"):
        measure(FAMILIES["fuyu"].build(), tiny_processor(), scenes(tmp_path))


def test_the_block_that_turns_least_between_the_ends() -> None:
    assert block_to_skip([0.0, 0.0, 0.4, 0.3, 0.5, 0.0, 0.0], 2) == (3, 4)
    with pytest.raises(SettingError, match="a block of 2 layers reaches into the first or last 2"):
        block_to_skip([0.0, 0.0, 0.0, 0.0], 2)


def test_the_command_prints_the_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path / "scenes")
    model = saved(model_of(), tmp_path / "model")
    given = ["--model", model, "--data", tmp_path / "scenes", "--split", "all", "--questions", 2]
    assert command("layers", *given) == 0
    assert "skip=(2,)" in capsys.readouterr().out
    assert command("layers", "--block", *given) == 0
    assert "skip=(2,)" in capsys.readouterr().out
    assert "needs 100.0% of the visual tokens, so AdaToken has nothing to prune" in command(
        "layers", "--stages", 2, *given
    )
    monkeypatch.setattr("tokenprune.evals.search.adatoken.NEARLY_ALL", 1.0)
    assert command("layers", "--stages", 2, *given) == 0
    assert "tokenprune.patch(model, tokenprune.AdaToken(keep_ratio=0." in capsys.readouterr().out


def test_skipped_layers_cost_no_cache_in_the_evals() -> None:
    """Two of five layers hold the whole image, and two of the others what is left of it."""
    model, sizes = model_of(), []
    for skip in (0, 1):
        with torch.no_grad(), tokenprune.patch(model, PAR(keep_ratio=0.25, skip=skip)):
            sizes.append(kv_cache_bytes(model, prompt([1])))
    per_token = 2 * 2 * 8 * 4  # keys and values of two heads, eight floats wide
    assert sizes == [per_token * (2 * (6 + 36) + n * (6 + 9)) for n in (3, 2)]
