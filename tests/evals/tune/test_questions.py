"""What a tuning is about: its questions in halves, whether answers agree, and the settings that it may choose."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.files.search import deep_llava, scenes
from helpers.files.sets import png, write_lines, write_parquet
from helpers.files.tasks import SETS
from helpers.models.staged import LAYERS
from optuna.trial import FixedTrial

from tokenprune.adapters.families.llava_frames import LlavaFramesAdapter
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import number_images
from tokenprune.evals.tune.page import kinds
from tokenprune.evals.tune.questions import CHUNK, halves
from tokenprune.evals.tune.scoring import agreement
from tokenprune.evals.tune.space import Space


def test_halves_share_no_image_and_hold_every_question(tmp_path: Path) -> None:
    questions = list(scenes(tmp_path, 50))
    first, second = halves(questions, seed=0)
    assert sorted(one.id for half in (first, second) for one in half.questions) == sorted(one.id for one in questions)
    images = [{one.images for one in half.questions} for half in (first, second)]
    assert not images[0] & images[1]
    assert abs(len(images[0]) - len(images[1])) <= 1
    assert halves(questions, 0) == (first, second) != halves(questions, 1)
    assert [len(first.first(n).questions) for n in (1, CHUNK, CHUNK + 1, 999)] == [CHUNK, CHUNK, 25, 25]


@pytest.mark.parametrize("form", ["table", "files"])
def test_copies_of_an_image_are_in_one_half(tmp_path: Path, form: str) -> None:
    """A table has a copy of the image in each row, and a script may write one per question."""
    images = [png() + bytes(n // 2) for n in range(40)]
    rows = [{"question": f"{n}?", "answer": "a", "image": f"{n}.png"} for n in range(40)]
    if form == "table":
        embedded = [row | {"image": {"bytes": one, "path": None}} for row, one in zip(rows, images, strict=True)]
        write_parquet(tmp_path / "questions.parquet", embedded)
    else:
        for number, one in enumerate(images):
            (tmp_path / f"{number}.png").write_bytes(one)
        write_lines(tmp_path / "questions.jsonl", rows)
    first, second = halves(TASKS["own"].load(tmp_path), seed=0)
    contents = [{one.images[0].read_bytes() for one in half.questions} for half in (first, second)]
    assert not contents[0] & contents[1]
    assert [len(half.questions) for half in (first, second)] == [20, 20]


def test_images_that_a_question_joins_are_in_one_half(tmp_path: Path) -> None:
    """Each question is about two images, and shares the second with the next question; every fifth starts a new
    chain."""
    questions = list(scenes(tmp_path, 100))
    images = [one.images[0] for one in questions]
    joined = [
        replace(one, images=(images[n],) if n % 5 == 4 else (images[n], images[n + 1]))
        for n, one in enumerate(questions)
    ]
    assert number_images(joined) == [n // 5 for n in range(100)]
    assert number_images([replace(one, images=()) for one in questions]) == list(range(100))
    first, second = halves(joined, seed=0)
    shown = [{image for one in half.questions for image in one.images} for half in (first, second)]
    assert not shown[0] & shown[1]
    assert [len(half.questions) for half in (first, second)] == [50, 50]


def test_every_beginning_is_a_fair_sample_of_the_tasks(tmp_path: Path) -> None:
    SETS["own", "published"](tmp_path / "own")
    other = TASKS["own"].load(tmp_path / "own")[0]
    boxes = list(scenes(tmp_path, 64))
    texts = [replace(other, id=f"own-{n}", images=boxes[n].images) for n in range(64)]
    half = halves([*boxes, *texts], 0)[0]
    tasks = [chunk[0].task for chunk in half.chunks]
    assert tasks[:2] in (["rec", "own"], ["own", "rec"])
    assert tasks[2:4] in (["rec", "own"], ["own", "rec"])


def test_rare_kinds_are_put_together(tmp_path: Path) -> None:
    SETS["own", "published"](tmp_path)
    first, second = TASKS["own"].load(tmp_path)
    assert kinds([first] * 20 + [second]) == ["own: names"] * 20 + ["own: other"]


POINT, BOX, NEAR, FAR = "[0.5, 0.5, 0.5, 0.5]", "[0.2, 0.2, 0.6, 0.6]", "[0.2, 0.2, 0.6, 0.5]", "[0.7, 0.7, 0.9, 0.9]"


@pytest.mark.parametrize(
    ("answer", "unpruned", "agrees"),
    [
        (BOX, BOX, 1),
        (NEAR, BOX, 1),
        (FAR, BOX, 0),
        (POINT, POINT, 1),  # a box without area overlaps nothing, not even itself
        (POINT, BOX, 0),
        ("Nowhere.", "nowhere", 1),
        ("nowhere", BOX, 0),
    ],
)
def test_boxes_agree_by_their_overlap_and_words_by_themselves(
    answer: str, unpruned: str, agrees: int, tmp_path: Path
) -> None:
    (question,) = scenes(tmp_path, 1)
    assert agreement(question, answer, unpruned) == agrees


# The start of a search, and the settings it may choose.


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
