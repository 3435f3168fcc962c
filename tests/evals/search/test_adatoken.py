"""AdaToken's calibration: block sums against whole attention maps, and a curve with a known answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import prompt

import tokenprune
from tokenprune import SettingError
from tokenprune.evals.search import adatoken
from tokenprune.evals.search.adatoken import LEAST, block_sums, calibrated, contributions, curve, remaining_shares


def test_block_sums_are_those_of_the_models_own_maps(llava: Any) -> None:
    inputs = prompt([1])
    with tokenprune.probe(llava, decoder_layers=[0, 1]) as seen:
        (image,) = seen.run(**inputs)
        found = [block_sums(image.text_attention[layer]) for layer in (0, 1)]
    visual = image.text_attention[0].visual
    first, last = int(visual[0]), int(visual[-1])
    implementation = llava.config._attn_implementation
    llava.set_attn_implementation("eager")
    with torch.no_grad():
        maps = llava(**inputs, output_attentions=True).attentions
    llava.set_attn_implementation(implementation)
    for sums, heads in zip(found, maps, strict=False):
        whole = heads[0].mean(0)
        inner = slice(first, last + 1)
        expected = (whole[inner, inner].sum(), whole[inner, :first].sum(), whole[last + 1 :, inner].sum())
        torch.testing.assert_close(torch.tensor(sums), torch.stack(expected))


def test_contributions_by_hand() -> None:
    """Within images 10, 20 and 0, between them 0, 10 and 30. Gathered: 10 + 14.6 = 24.6 twice. Layer 1: 8 + 3 + 7.38 =
    18.38; layer 2: 0 + 9 + 7.38 = 16.38."""
    assert contributions([10.0, 20.0, 0.0], [0.0, 10.0, 30.0]) == [1.0, 0.0]
    assert contributions([10.0, 20.0, 0.0, 20.0], [0.0, 10.0, 30.0, 5.0]) == pytest.approx(
        [2 / (2 + 2.88), 0, 1], abs=1e-9
    )
    assert contributions([1.0, 0.0, 0.0], [0.0, 0.0, 0.0]) == [0.0, 0.0]


@pytest.mark.parametrize("rate", [-0.3, 0.0, 0.05, 0.4, 1.7])
def test_a_curve_of_the_form_is_found_again(rate: float) -> None:
    layers = np.arange(1, 32, dtype=float)
    target = curve(layers, rate, 32)
    assert target[0] == 1
    assert curve(np.array([32.0]), rate, 32)[0] == pytest.approx(LEAST)
    assert remaining_shares(list(target), 32) == pytest.approx(list(target), abs=1e-4)


def test_stages_that_leave_every_token_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With six layers and five stages. The share at a layer is that held after the previous layer."""
    held = [1.0, 0.99996, 0.75, 0.5, 0.20004]
    monkeypatch.setattr(adatoken, "attention_sums", lambda *given: ([1.0] * 6, [1.0] * 6))
    monkeypatch.setattr(adatoken, "remaining_shares", lambda *given: np.array(held))
    strategy = calibrated(None, None, [], 5)
    assert strategy.schedule == ((3, 0.75), (4, 0.5), (5, 0.2))
    assert strategy.keep_ratio == pytest.approx((3 + 0.75 + 0.5 + 0.2) / 6)
    held[:] = [1.0] * 5
    with pytest.raises(SettingError, match="up to layer 5 of 6, this model's attention needs all visual tokens"):
        calibrated(None, None, [], 5)


def test_without_samples() -> None:
    from tokenprune.evals.search.adatoken import attention_sums

    with pytest.raises(SettingError, match="no questions"):
        attention_sums(None, None, [])
