"""The rows that adapt trains on: their splits, and the arguments that choose them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.files.evals import sample_image, saved, write_vqav2
from helpers.files.own import write_own
from helpers.files.search import deep_llava
from helpers.models.processors import processor_of
from helpers.models.staged import Deep
from helpers.training import COLLATOR, adapted_llava, alone, fresh_llava

import tokenprune
from tokenprune import DataError, SettingError
from tokenprune.errors import UnsupportedError
from tokenprune.evals.adapt.adapt import adapt
from tokenprune.evals.adapt.examples import Example, by_image, labelled
from tokenprune.evals.adapt.rows import Collator, Row, RowTokens, common_prefix_length, why_not_in_one_row
from tokenprune.evals.run.questions import load_questions
from tokenprune.sequence.packing import IGNORED_LABEL
from tokenprune.strategies.parsing import StrategySpec

#: For each image, questions of one to three words, one of them asked twice, and answers of one and two tokens.
ASKED = [[("12 13", "07 08"), ("14", "05"), ("12 13", "09")], [("12 15 16", "11")], [("13", "06"), ("15 12", "08 07")]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    pairs = ((n, *pair) for n, asked in enumerate(ASKED) for pair in asked)
    lines = ({"image": f"{n}.png", "question": text, "answer": answer} for n, text, answer in pairs)
    questions = load_questions(write_own(tmp_path_factory.mktemp("own"), *lines))
    found = [Row(tuple(labelled(group))) for group in by_image(questions, 8)]
    assert [len(row.examples) for row in found] == [3, 1, 2]
    return found


def apart(rows: list[Row]) -> list[Row]:
    return alone(example for row in rows for example in row.examples)


def spec(text: str) -> Any:
    return StrategySpec.read(text).make({"keep_ratio": 0.3})


def learnt(model: Any, batch: dict[str, Any], strategy: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and its gradients."""
    model.zero_grad(set_to_none=True)
    if strategy is None:
        loss = model(**batch).loss
    else:
        with tokenprune.patch(model, strategy) as handle:
            loss = model(**batch).loss
            assert handle.report.n_kept < handle.report.n_visual
    loss.backward()
    return float(loss.detach()), {
        name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None
    }


@pytest.mark.parametrize("text", [None, "fopru", "mosaic:attention_bias=size", "vflowopt"])
def test_loss_and_gradients_are_those_of_the_questions_alone(text: str | None, rows: list[Row]) -> None:
    model = fresh_llava()
    strategy = None if text is None else spec(text)
    adapted = adapted_llava(model)
    together, own = learnt(adapted, COLLATOR(rows), strategy)
    expected, other = learnt(adapted, COLLATOR(apart(rows)), strategy)
    assert together == pytest.approx(expected, rel=1e-5)
    assert own.keys() == other.keys() != set()
    assert all(torch.allclose(own[name], grad, atol=1e-6) for name, grad in other.items())
    assert why_not_in_one_row(model, COLLATOR, strategy or spec("fopru"), rows[0]) is None


def test_a_row_has_its_image_once_and_every_answer(rows: list[Row]) -> None:
    together, each = COLLATOR(rows), COLLATOR(apart(rows))
    assert together["pixel_values"].shape[0] == together["input_ids"].shape[0] == 3
    answers = together["labels"][together["labels"] != IGNORED_LABEL]
    assert answers.tolist() == each["labels"][each["labels"] != IGNORED_LABEL].tolist()
    assert together["input_ids"].numel() < each["input_ids"].numel()
    mask = together["attention_mask"]
    assert mask.dtype == torch.bool
    assert mask.any(-1).all()  # no query without a key, not even in padding
    assert not mask.triu(1).any()


def test_what_prompts_have_in_common() -> None:
    assert common_prefix_length([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert common_prefix_length([[1, 2, 3], [1, 2, 3]]) == 2  # an answer follows the last token of each
    assert common_prefix_length([[1, 2], [1, 2, 3]]) == 1
    assert common_prefix_length([[1, 2, 3]]) == 2


def test_questions_are_split_evenly(rows: list[Row]) -> None:
    questions = [example.question for row in rows for example in row.examples]
    assert [[one.id for one in group] for group in by_image(questions, 2)] == [
        ["own-1", "own-3"],
        ["own-2"],
        ["own-4"],
        ["own-5", "own-6"],
    ]


def test_why_questions_are_left_apart(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh_llava()

    def reason(model: Any, text: str) -> str:
        found = why_not_in_one_row(model, COLLATOR, spec(text), rows[0])
        assert found is not None
        return found

    assert reason(model, "fastv") == "FastV reads the question"
    assert "takes no mask that keeps them apart" in reason(Deep("llava-clip").build("eager"), "fopru")
    add = RowTokens.add

    def one_after_another(sequence: RowTokens, *args: Any) -> None:
        add(sequence, *args)
        sequence.positions = list(range(len(sequence.ids)))

    monkeypatch.setattr(RowTokens, "add", one_after_another)
    assert "their loss is then" in reason(model, "fopru")
    monkeypatch.setattr("tokenprune.evals.adapt.rows.separation_mask", causal)
    assert "its tokenizer end prompts differently" in reason(model, "fopru")


def causal(parts: torch.Tensor) -> torch.Tensor:
    """Return a mask with which questions see those before them."""
    return torch.ones(len(parts), 1, parts.shape[1], parts.shape[1], dtype=torch.bool).tril()


@pytest.mark.filterwarnings("ignore:__array__ implementation does")  # of PaliGemma's processor
@pytest.mark.parametrize("kind", ["paligemma", "janus", "molmo2"])
def test_no_token_of_an_answer_sees_a_later_one(kind: str, rows: list[Row]) -> None:
    """Not even in PaliGemma, whose prompts attend to all of themselves."""
    model, collator = FAMILIES[kind].build().train(), Collator(processor_of(kind), torch.float32)
    question = rows[1].examples[0].question
    batches = [collator([Row((Example(question, answer),))]) for answer in ("w3 w4", "w3 w5")]
    (place,) = (batches[0]["input_ids"] != batches[1]["input_ids"])[0].nonzero()[:, 0].tolist()
    with torch.no_grad():
        logits = [model(**batch).logits[0, :place] for batch in batches]
    assert torch.allclose(*logits, atol=1e-6)


def test_images_that_do_not_go_in_one_batch(tmp_path: Path) -> None:
    """PerceptionLM's images can be batched if they have the same number of tiles."""
    for number, size in enumerate(((120, 60), (80, 80), (120, 60))):
        sample_image(size).save(tmp_path / f"{number}.png")
    lines = [{"image": f"{number}.png", "question": "w1", "answer": "w2"} for number in range(3)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = [Row((one,)) for one in labelled(load_questions(tmp_path))]
    collator = Collator(processor_of("perception-lm"), torch.float32)
    assert len(collator([rows[0], rows[2]])["labels"]) == 2
    with pytest.raises(UnsupportedError, match=r"images of 3 rows in one batch .*Write --batch 1 and --accumulate 3\."):
        collator(rows)


# The split that an adapter learns from is not the one that it is tested on.


def test_a_mistake_in_the_split_for_training_is_said(tmp_path: Path) -> None:
    """Otherwise it would learn from the questions that it is tested on."""
    model = saved(deep_llava(), tmp_path / "model")
    line = {"question": "12", "answer": "05"}
    write_own(tmp_path, *(line | {"image": f"{split}.png", "split": split} for split in ("train", "test")))
    (tmp_path / "train.png").unlink()
    with pytest.raises(DataError, match=r"line 1: missing image .*train\.png"):
        adapt(model, data=tmp_path, output=tmp_path / "adapted", steps=1)


def test_other_splits_that_it_learns_from_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved(deep_llava(), tmp_path / "model")
    line = {"image": "1.png", "question": "12", "answer": "05"}
    write_own(tmp_path, *(line | {"split": split} for split in ("val", "test")))
    adapt(model, data=tmp_path, output=tmp_path / "adapted", steps=1)
    assert "so this learns from test, val." in " ".join(capsys.readouterr().out.split())


# Wrong arguments of a training are reported before the weights load.


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "decodr"}, "Did you mean 'decoder'"),
        ({"save_every": 0}, "save_every=0 is not a whole number above 0"),
        ({"steps": 2.5}, r"steps=2\.5 is not a whole number"),
        ({"tasks": "vqa"}, "tasks: found 'vqa', which is not a list; write tasks="),
        ({"image_roots": "/data"}, "image_roots: found '/data', which is not a list"),
        ({"model": ("a loaded model", "its processor")}, "adapt loads the model itself, because training changes it"),
        ({"output": Path(__file__)}, "test_rows.py: cannot be a folder, because it is a file. Name another --out"),
    ],
)
def test_mistakes_are_said(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(deep_llava(), tmp_path / "model")
    write_vqav2(tmp_path / "vqa", 2)
    monkeypatch.setattr("tokenprune.evals.adapt.adapt.load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(SettingError, match=message):
        adapt(**{"model": model, "data": tmp_path, "output": tmp_path / "out", **options})
