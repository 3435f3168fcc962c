"""The start of a search, and the settings it may choose."""

import pytest
from helpers.files.search import LAYERS, deep_llava
from optuna.trial import FixedTrial

from tokenprune.adapters.families.llava_frames import LlavaFramesAdapter
from tokenprune.evals.tune.space import Space


def space(*strategies: str) -> Space:
    return Space(deep_llava(), LAYERS, strategies, (0.1, 0.9))


def test_a_search_begins_with_every_strategy_at_its_defaults_and_then_with_other_choices() -> None:
    found = space("fopru", "mosaic", "scope")
    starts = [found.start(number) for number in range(9)]
    assert [one["strategy"] for one in starts] == ["fopru", "mosaic", "scope"] * 3
    assert (starts[0]["fopru layer"], starts[0]["fopru cells"], starts[0]["fopru score"]) == (None, None, "column")
    assert (starts[3]["fopru layer"], starts[3]["fopru cells"]) == (-2, "auto")
    assert starts[3]["fopru score"] != "column"
    assert [one["mosaic attention_bias"] for one in starts[1::3]] == [None, "size", None]
    ratios = [one["keep_ratio"] for one in starts]
    assert 0.1 < min(ratios) < 0.25 < 0.75 < max(ratios) < 0.9
    setups = [found.suggest(FixedTrial(one)) for one in starts]
    assert setups[4] is not None
    assert setups[4].label.startswith("mosaic:")
    assert "attention_bias=size" in setups[4].label


def test_frames_are_compared_where_the_model_is_read_so() -> None:
    """In LLaVA, which gets the frames of a video as images."""
    assert "EVS" in space("evs", "fopru").refused["evs"]
    of_videos = Space(deep_llava(), LAYERS, ("evs",), (0.1, 0.9), adapter=LlavaFramesAdapter)
    assert not of_videos.refused
    setup = of_videos.suggest(FixedTrial(of_videos.start(0)))
    assert setup is not None
    assert setup.adapter is LlavaFramesAdapter


def test_a_strategy_that_runs_with_another_choice_is_searched() -> None:
    """VFlowOpt's later stages are inside the language model, where vLLM cannot prune."""
    of_vllm = Space(deep_llava(), LAYERS, ("vflowopt", "par"), (0.1, 0.9), servable=True)
    assert of_vllm.refused.keys() == {"par"}
    for number in range(3):
        setup = of_vllm.suggest(FixedTrial(of_vllm.start(number)))
        assert setup is not None
        assert setup.label == "vflowopt:progressive=False"


def test_a_thinker_is_served_inside_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(deep_llava().config), "model_type", "qwen2_5_omni_thinker")
    assert not Space(deep_llava(), LAYERS, ("fopru",), (0.1, 0.9), servable=True).refused


def test_what_is_given_is_not_searched() -> None:
    choices = space("mosaic:attention_bias=size", "fopru:cells=auto")
    assert "attention_bias" not in choices.choices("mosaic:attention_bias=size")
    assert choices.choices("fopru:cells=auto").keys() == {"layer", "score"}
