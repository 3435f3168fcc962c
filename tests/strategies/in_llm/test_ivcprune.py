"""IVC-Prune: coordinates and similarity of values, computed by hand."""

from typing import Any

import pytest
import torch
from helpers.tiny import prompt

import tokenprune
from tokenprune import IVCPrune
from tokenprune.strategies.in_llm.ivcprune import value_similarity
from tokenprune.strategy import Stage
from tokenprune.tokens import Layout, StageTokens, TextAttention


def tokens_with(values: torch.Tensor, cosines: list[float], sines: list[float], n_text: int = 1) -> StageTokens:
    """Return visual tokens followed by text, with one head."""
    n = values.shape[1] - n_text
    rotation = torch.tensor([cosines, sines])[..., None].expand(-1, -1, 2)
    attention = TextAttention(
        values,
        values,
        1.0,
        torch.ones(n + n_text).bool(),
        torch.arange(n),
        torch.arange(n, n + n_text),
        values=values,
        rotation=rotation,
    )
    return StageTokens(torch.zeros(n, 2), torch.arange(n), Layout.raster((1, 1, n)), text_attention=attention)


def test_similarity_by_hand() -> None:
    """Products 0 and ln 3 times 2, over the root of a width of 4: weights of 1/4 and 3/4. A second head has equal
    ones."""
    values = torch.zeros(2, 3, 4)
    values[0, 1, 0], values[0, 2, 0] = 2.0, torch.tensor(3.0).log()
    found = value_similarity(values, torch.tensor([2]), torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([(0.25 + 0.5) / 2, (0.75 + 0.5) / 2])


def test_seeds_coordinates_and_then_what_resembles_most() -> None:
    """Products with the text are .5, .4, 2 and -3, so 2 is the seed. 0 has the largest cosine and 3 the largest sine;
    those of 1 are large and negative."""
    values = torch.tensor([[[0.5, 0.0], [0.4, 3.0], [2.0, 1.0], [-3.0, 0.0], [1.0, 0.0]]])
    tokens = tokens_with(values, [0.9, -0.95, 0.2, 0.3, 1.0], [0.1, -0.95, 0.3, 0.9, 1.0])
    kept = {n: IVCPrune(keep=n, positions=0.34).select_at(Stage(1, keep=n), tokens).kept.tolist() for n in (2, 3)}
    assert kept == {2: [0, 2], 3: [0, 2, 3]}
    # Without coordinates, the seed's products with 0 and 1, 1 and 3.8, bring 1 before 0.
    for n, expected in ((1, [2]), (2, [1, 2]), (3, [0, 1, 2])):
        assert IVCPrune(keep=n, positions=0.0).select_at(Stage(1, keep=n), tokens).kept.tolist() == expected


def test_each_text_token_counts_as_much_as_each_seed() -> None:
    """The text resembles 0, the seed, by .55, 1 by .42 and 2 by .03; the seed resembles them by .11, .09 and .80. The
    mean over the seed and one text token is higher for 2, that over the seed and three for 1."""
    for n_text, expected in ((1, [0, 2]), (3, [0, 1])):
        values = torch.tensor([[[1.0, 0.5], [0.9, 0.0], [0.0, 8.0], *[[4.0, 0.0]] * n_text]])
        tokens = tokens_with(values, [0.0] * (3 + n_text), [0.0] * (3 + n_text), n_text)
        selection = IVCPrune(keep=2, positions=0.0).select_at(Stage(1, keep=2), tokens)
        assert selection.kept.tolist() == expected
        assert float(selection.scores.sum()) == pytest.approx(1)


def test_the_stage_is_where_the_released_settings_have_it() -> None:
    """Those for Qwen2.5-VL's 7B and 3B, DeepSeek-VL2-small and LLaVA-1.5; otherwise in the middle."""
    found = [stage.layer for n_layers in (28, 36, 27, 32, 7, 1) for stage in IVCPrune().stages(n_layers)]
    assert found == [16, 22, 17, 16, 3, 1]
    assert [stage.layer for stage in IVCPrune(layer=5).stages(32)] == [5]


@pytest.mark.parametrize("n", [160, 249])
def test_one_percent_are_seeds(n: int) -> None:
    """1.6 and 2.49, rounded: two. The text's products with the first three are 2, 1.5 and 1.4, so the first two are
    kept, though seed 0 resembles 2 most, with products of 13, 0 and 11.8. The mean is over both seeds and the text."""
    values = torch.zeros(1, n + 1, 2)
    values[0, :3] = torch.tensor([[2.0, 3.0], [1.5, -1.0], [1.4, 3.0]])
    values[0, n, 0] = 1
    tokens = tokens_with(values, [0.0] * (n + 1), [0.0] * (n + 1))
    selection = IVCPrune(keep=2, positions=0.0).select_at(Stage(1, keep=2), tokens)
    assert selection.kept.tolist() == [0, 1]
    assert float(selection.scores.sum()) == pytest.approx(1)


def test_it_reads_the_models_own_values_and_angles(llava: Any) -> None:
    seen: list[TextAttention] = []

    class Watching(IVCPrune):
        def select_at(self, stage: Stage, tokens: StageTokens) -> Any:
            seen.append(tokens.attention)
            return super().select_at(stage, tokens)

    inputs = prompt([1])
    with torch.no_grad(), tokenprune.patch(llava, Watching(keep=8)) as handle:
        states = []
        hook = llava.model.language_model.layers[0].input_layernorm.register_forward_hook(
            lambda module, args, output: states.append(output)
        )
        llava(**inputs)
        hook.remove()
    (stage,) = handle.report.images[0].stages
    assert stage.layer == 1  # half of the depth
    assert len(stage.kept) == 8
    projection = llava.model.language_model.layers[0].self_attn.v_proj
    heads = projection(states[0])[0].unflatten(-1, (seen[0].keys.shape[0], -1)).transpose(0, 1)
    torch.testing.assert_close(seen[0].values, heads)
    n_tokens = inputs["input_ids"].shape[1]
    cos, sin = llava.model.language_model.rotary_emb(states[0], torch.arange(n_tokens)[None])
    torch.testing.assert_close(seen[0].rotation, torch.cat([cos, sin]))
    with torch.no_grad(), tokenprune.probe(llava, decoder_layers=[0]) as probed:
        (image,) = probed.run(**inputs)
    torch.testing.assert_close(image.text_attention[0].values, heads)
    torch.testing.assert_close(image.text_attention[0].rotation, torch.cat([cos, sin]))
