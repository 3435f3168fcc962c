"""Our scorers agree with those of published packages on random answers.

Skipped if the packages are not installed; `make test-peers` installs them and runs this. LAVIS has VQA's official
script, VLMEvalKit is MMBench's scorer, and lmms-eval has the scripts of the other sets or of those who first measured
on them. Intentional differences are left out here, and described in the task's docstring.
"""

import importlib
import importlib.metadata
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.by_path import module_at
from helpers.files.published import lmms, loaded_set, records, vlmevalkit
from helpers.files.sets import write_tsv

from tokenprune.evals.boxes import iou
from tokenprune.evals.models.prompt_styles import LLAVA
from tokenprune.evals.tasks import TASKS, ai2d, mme, scienceqa, seedbench, xlrs
from tokenprune.evals.tasks.base.choices import infer_letter, lettered
from tokenprune.evals.tasks.base.short_answers import anls, relaxed
from tokenprune.evals.tasks.base.vqa_accuracy import normal_accuracy, soft_accuracy
from tokenprune.evals.tasks.refcoco import RefCocoQuestion

WORDS = [
    "a", "an", "the", "two", "Ten", "none", "isnt", "dont", "it's", "its", "u.s.a", "3.5", "1,000", "red,blue",
    "T-shirt", "t-shirt", "left/right", "(big)", "yes", "No.", "what?", "man's", "10:30", "50%", ".5", "5.",
    "o'clock", "youre", "can't", "x@y", "a;b", '"q"', "couldnt've", "let's", "café", "{c}",
]  # fmt: skip
OPTIONS = lettered(["a box", "a dog", "red", "none of these"])
FORMS = [
    "{L}", "{L}.", "({L})", "{L}. {t}", "{L}: {t}", "{L}) {t}", "{l}", "({l})", "The answer is {L}",
    "The answer is {L}.", "the answer is {l}", "Option {L}", "{t}", "{t}.", "It is {t}", "{L}\n{t}", "({L}) {t}",
    "Answer: {L}", "The correct answer is ({L}).", "The best answer is {L}", "{L} or {M}", "I think {L} because {t}",
    "**{L}**", "{L},", "{L} {M}", "{L}, {M}", "A photo of {t}", "Building {L}", "E", "nothing", "A", "a", "7",
    "{L} is what I see there",
    "{L} because there is {t}, as far as I can see, and nothing else in this whole image",
    "As far as I can see there is {t}, and nothing else that I know in this whole image of yours",
]  # fmt: skip
CHOSEN = [
    form.format(L=letter, l=letter.lower(), t=text, M="BCDA"[place])
    for form in FORMS
    for place, (letter, text) in enumerate(OPTIONS.items())
]


@pytest.fixture
def rng() -> random.Random:
    return random.Random(0)


def said(rng: random.Random) -> str:
    words = (rng.choice(WORDS) for _ in range(rng.randint(1, 3)))
    return rng.choice([" ", "  ", "\n", ", "]).join(words) + rng.choice(["", "", ".", "?", "!"])


def nearly(text: str, rng: random.Random) -> str:
    """Return the text, or something similar that a scorer may or may not accept."""
    changes: Sequence[Callable[[str], str]] = (
        str, str, str.upper, lambda t: t.rstrip(".?!"), lambda t: f"{t}.", lambda t: f"the {t}",
        lambda t: t.replace("-", " "), lambda t: t.replace(",", ""), lambda t: said(rng), lambda t: t[:-1] or t,
    )  # fmt: skip
    return rng.choice(changes)(text)


def of_people(rng: random.Random) -> tuple[str, list[str]]:
    """Return an answer, and the answers of ten people."""
    base = said(rng)
    answers = [nearly(base, rng) if rng.random() < 0.7 else said(rng) for _ in range(10)]
    return nearly(base, rng).strip(), answers if rng.random() < 0.8 else [base] * 10


def test_vqa(rng: random.Random) -> None:
    """Uses the copy of the official script in the package, which needs nothing else of LAVIS."""
    try:
        files = importlib.metadata.files("lavis-gml") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("lavis-gml is not installed")
    (path,) = (file.locate() for file in files if file.match("vqa_tools/vqa_eval.py"))
    script = module_at(Path(str(path)), "vqa_eval")
    asked = {number: of_people(rng) for number in range(3000)}
    truths = {
        number: {"question_type": "", "answer_type": "", "answers": numbered(answers)}
        for number, (_, answers) in asked.items()
    }
    given = {number: {"answer": answer} for number, (answer, _) in asked.items()}
    vqa, results = (Bag(qa=of, getQuesIds=lambda: list(asked)) for of in (truths, given))
    evaluation = script.VQAEval(vqa, results)
    evaluation.evaluate()
    theirs = evaluation.evalQA
    scores = [theirs[number] / 100 for number in asked]
    assert [soft_accuracy(*one) for one in asked.values()] == pytest.approx(scores, abs=1e-4)
    assert 0.1 < sum(scores) / len(scores) < 0.9


class Bag:
    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


def numbered(answers: Sequence[str]) -> list[dict[str, Any]]:
    return [{"answer": answer, "answer_id": number} for number, answer in enumerate(answers)]


@pytest.mark.parametrize(
    ("module", "function"),
    [("textvqa.utils", "textvqa_process_results"), ("vizwiz_vqa.utils", "vizwiz_vqa_process_results")],
)
def test_answers_of_ten(module: str, function: str, rng: random.Random) -> None:
    score = getattr(lmms(module), function)
    for answer, answers in (of_people(rng) for _ in range(2000)):
        theirs = score({"question_id": 1, "answers": list(answers)}, [answer])["exact_match"]
        assert normal_accuracy(answer, answers) == pytest.approx(theirs), (answer, answers)


def test_anls(rng: random.Random) -> None:
    score = lmms("docvqa.utils") and importlib.import_module("lmms_eval.api.metrics").anls
    for _ in range(2000):
        truths = [said(rng) for _ in range(rng.randint(1, 3))]
        answer = nearly(rng.choice(truths), rng)
        assert anls(answer, truths) == pytest.approx(score(truths, [answer])["anls"]), (answer, truths)


def test_relaxed(rng: random.Random) -> None:
    score = lmms("chartqa.utils").relaxed_correctness
    for _ in range(2000):
        values = (rng.choice([0, 1, 2.5, 33, 1e3, 0.07]) * rng.choice([1, 1.03, 0.94, -1, 1.05]) for _ in range(2))
        written = [rng.choice(["{:g}", "{:.2f}", "{:g}%", "{:,.0f}", "${:g}"]).format(value) for value in values]
        answer, truth = (rng.choice([text, "Spain", "nan", "1_000", "inf"]) for text in written)
        assert relaxed(answer, [truth]) == score(answer, truth), (answer, truth)


def test_letters() -> None:
    """For ScienceQA, lmms-eval is compared only on capital letters, since LLaVA's own script reads no small ones."""
    science, seed, diagrams = lmms("scienceqa.utils"), lmms("seedbench.utils"), lmms("ai2d.utils")
    match = importlib.import_module("lmms_eval.api.metrics").exact_match_hf_evaluate
    plain, choices = {"ignore_case": True, "ignore_punctuation": True}, list(OPTIONS.values())
    for answer in CHOSEN:
        ours = {
            module: [float(module.read(answer, OPTIONS) == letter) for letter in OPTIONS]
            for module in (scienceqa, seedbench, ai2d)
        }
        read = [
            science.sqa_process_results({"choices": choices, "answer": number}, [answer])["exact_match"]
            for number in range(len(choices))
        ]
        assert not any(read) or read == ours[scienceqa] or answer.islower(), answer
        record = {"data_type": "image", "question_id": 1}
        assert ours[seedbench] == [
            seed.seed_aggregation_result([seed.seed_process_result(record | {"answer": letter}, [answer])["seed_all"]])
            for letter in OPTIONS
        ], answer
        filtered = diagrams.MultiChoiceRegexFilter(**plain).apply([[answer]], [{}])
        assert ours[ai2d] == [
            match(predictions=filtered, references=[letter], **plain)["exact_match"] for letter in OPTIONS
        ], answer


def test_several_letters() -> None:
    score = lmms("xlrs.mcq_utils")
    for answer in CHOSEN:
        assert xlrs.read(answer) == set(score.extract_characters_regex(answer)), answer


def test_letters_by_vlmevalkit() -> None:
    """MMBench's scorer, where it does not ask a chat model. Its Z stands for no answer."""
    rules = vlmevalkit("utils.matching_util")
    for answer in CHOSEN:
        theirs = rules.can_infer(answer, dict(OPTIONS))
        assert infer_letter(answer, OPTIONS) == (theirs if theirs in OPTIONS else None), answer


@pytest.mark.filterwarnings("ignore")  # VLMEvalKit's and pandas'
def test_circular_accuracy(tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """On questions that are answered right in all turns, in some or in none, and with answers for which it would ask a
    chat model."""
    monkeypatch.setenv("PRED_FORMAT", "tsv")
    multiple_choice = vlmevalkit("dataset.utils.multiple_choice")
    texts = dict(zip("ABCD", ("a box", "a dog", "red", "none of these"), strict=True))
    table = [{"index": n, "question": f"{n}?", **texts, "answer": rng.choice("ABCD"), "image": "x"} for n in range(40)]
    write_tsv(tmp_path / "MMBench_DEV_EN.tsv", table)
    questions: Sequence[Any] = TASKS["mmbench"].load(tmp_path)
    assert len(questions) == 160
    answered = [(question, answer_with_luck(question, rng)) for question in questions]
    turns = [
        {
            "index": int(question.id.removeprefix("mmbench-")),
            "question": "?",
            **question.options,
            "answer": question.letter,
        }
        for question in questions
    ]
    frame = importlib.import_module("pandas").DataFrame
    data = frame([{**turn, "prediction": answer} for turn, (_, answer) in zip(turns, answered, strict=True)])
    scored = multiple_choice.mcq_circular_eval(None, data, frame(turns), 1, str(tmp_path / "scored.pkl"))
    ours = TASKS["mmbench"].metrics(answered)["circular accuracy"].value
    assert ours == pytest.approx(float(scored["hit"].mean()))
    assert 0.2 < ours < 0.8


def answer_with_luck(question: Any, rng: random.Random) -> str:
    letter = question.letter if rng.random() < 0.9 else rng.choice("ABCD")
    return rng.choice([letter, f"{letter}.", f"({letter}) {question.options[letter]}", question.options[letter]])


YES_NO = [
    "yes", "no", "Yes.", "No, it is not.", "Yes, there is", "There is not", "not", "nope", "y", "n", "N.",
    "Maybe yes", "maybe", "  yes", "yeah", "know", "none", "Yes no", "I do not know", "", "The answer is no", "y.e.s",
    "NO",
]  # fmt: skip


def test_mme() -> None:
    score = lmms("mme.utils")
    for answer in YES_NO:
        assert mme.read(answer) == {"yes": True, "no": False}.get(score.parse_pred_ans(answer)), answer


def test_mme_sums(tmp_path: Path, rng: random.Random) -> None:
    score = lmms("mme.utils")
    answered = [(question, rng.choice(["yes", "no"])) for question in loaded_set(tmp_path, "mme")]
    theirs = [
        score.mme_process_results(record.content, [answer])
        for (_, answer), record in zip(answered, records(tmp_path), strict=True)
    ]
    values = TASKS["mme"].metrics(answered)
    for name in ("perception", "cognition"):
        found = [one[key] for one in theirs if (key := f"mme_{name}_score") in one]
        assert values[name].value == pytest.approx(score.mme_aggregate_results(found))


def test_pope(rng: random.Random, tmp_path: Path) -> None:
    """On a bare yes or no: lmms-eval counts nothing else, while POPE's own script counts everything except a no as a
    yes. lmms-eval's yes-rate is that of the true answers."""
    score = lmms("pope.utils")
    answered = [(question, rng.choice(["yes", "no"])) for question in loaded_set(tmp_path, "pope") for _ in range(9)]
    theirs = [
        score.pope_process_results({"answer": "yes" if question.truth else "no", "question_id": 1}, [answer])
        for question, answer in answered
    ]
    values = TASKS["pope"].metrics(answered)
    for ours, name in {"accuracy": "accuracy", "F1": "f1_score", "precision": "precision", "recall": "recall"}.items():
        found = getattr(score, f"pope_aggregate_{name}")([one[f"pope_{name}"] for one in theirs])
        assert values[ours].value == pytest.approx(found), ours


def test_boxes(rng: random.Random) -> None:
    """But for boxes without an area, by which theirs would divide."""
    score = lmms("refcoco.utils_rec")
    for _ in range(500):
        xs, ys, us, vs = (sorted((rng.random(), rng.random())) for _ in range(4))
        true, text = (xs[0], ys[0], xs[1], ys[1]), f"[{us[0]:.2f}, {vs[0]:.2f}, {us[1]:.2f}, {vs[1]:.2f}]"
        named = {"task": "refcoco", "id": "1", "text": "", "images": (), "expression": ""}
        question = RefCocoQuestion(**named, box=true, size=(1, 1), style=LLAVA)
        read, box = score.parse_float_sequence_within(text), question.answered_box(text)
        if box is not None:
            assert box == pytest.approx(read)
            assert iou(true, box) == pytest.approx(score.compute_iou(true, read), abs=1e-5)
            assert question.hits_centre(text) == score.compute_center_accuracy(true, read)
