"""Every task on tiny sets, in each form in which it is distributed: prompts, scores, metrics and errors."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.files.tasks import SETS, VIDEO_SETS

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.run.questions import limit_questions
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.synonyms import exact_or_synonym, wordnet
from tokenprune.evals.tasks.base.video import VideoQuestion

GOLDEN = Path(__file__).parent / "golden"
#: The same files and code under a different name.
TWINS = {"rec", "refcoco-google", "refcoco+", "refcocog", "refcocog-google", "vqa", "videoqa", "screenspot-v2"}
EVERY_SET = SETS | VIDEO_SETS


def loaded(folder: Path, name: str, form: str) -> Sequence[Question]:
    EVERY_SET[name, form](folder)
    return TASKS[name].load(folder)


forms = pytest.mark.parametrize(("name", "form"), EVERY_SET)


def test_every_task_is_tested() -> None:
    assert set(TASKS) - TWINS == {name for name, _ in EVERY_SET} == {path.stem for path in GOLDEN.iterdir()}


@forms
def test_prompts_are_golden(tmp_path: Path, name: str, form: str) -> None:
    """Prompts are exactly as published, and the same in every form of the set."""
    prompts = list(dict.fromkeys(question.text for question in loaded(tmp_path, name, form)))
    golden = (GOLDEN / f"{name}.txt").read_text().removesuffix("\n").split("\n=====\n")
    assert prompts == golden[: len(prompts)]
    assert len(prompts) == len(golden) or form == "hub"


@forms
def test_tiny_sets_of_every_form_are_read(tmp_path: Path, name: str, form: str) -> None:
    with allowing(frames=3):
        questions = loaded(tmp_path, name, form)
    assert TASKS[name].is_in(tmp_path)
    assert len({question.id for question in questions}) == len(questions) > 0
    for question in questions:
        assert question.task == name
        assert question.images
        if isinstance(question, VideoQuestion):
            assert len(question.open_clip().frames) == len(question.open_images()) == 3
        else:
            assert {image.size for image in question.open_images()} == {(60, 40)}
        assert question.score("") is None
    with pytest.raises(ValueError, match=r"no split 'nowhere'; it has \w+"):
        TASKS[name].load(tmp_path, "nowhere")


@forms
def test_a_folder_without_the_set(tmp_path: Path, name: str, form: str) -> None:
    with pytest.raises(DataError, match=r"needs|no refs"):
        TASKS[name].load(tmp_path)
    assert not TASKS[name].is_in(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        TASKS[name].load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [name for name, form in SETS if form == "published" and name != "mmbench"])
def test_missing_and_truncated_images(tmp_path: Path, name: str) -> None:
    questions = loaded(tmp_path, name, "published")
    for image in {image for question in questions for image in question.images}:
        assert isinstance(image, Path)
        image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{questions[0].images[0].name}: truncated or broken"):
        questions[0].open_images()
    for image in {image for question in questions for image in question.images}:
        assert isinstance(image, Path)
        image.unlink()
    with pytest.raises(DataError, match=r"(\[.*\]|line \d+|image \d+).*: missing image"):
        TASKS[name].load(tmp_path)


SCORES = {
    "own": [("A box.", 1), ("BOX", 1), ("a cup", 0)],
    "refcoco": [("It is at [0.5, 0.25, 0.75, 0.75].", 1), ("[0.0, 0.0, 0.2, 0.2]", 0), ("on the right", None)],
    "vqav2": [("Yes.", 1), ("no", 0.6), ("box", 0)],
    "pope": [("Yes, there is.", 1), ("No", 0), ("There is not a box", 0), ("a box", 1)],
    "textvqa": [("STOP", 1), ("shop.", 0.9), ("go", 0)],
    "gqa": [("Table.", 1), ("tables", 0)],
    "vizwiz": [("Unanswerable", 1), ("a box", 0.6)],
    "chartqa": [("40", 1), ("41.9", 1), ("42.1", 0), ("forty", 0)],
    "docvqa": [("1/8/93", 1), ("1/8/9", 5 / 6), ("jan 8,  1993", 1), ("1993", 0.5), ("93", 0)],
    "scienceqa": [("A", 1), ("A. a box", 1), ("The answer is A.", 1), ("B.", 0), ("a dog", None), ("A or B", None)],
    "mmbench": [("A", 1), ("A. a box", 1), ("a box", 1), ("it is a dog", 0), ("neither", None)],
    "mme": [("Yes", 1), ("no.", 0), ("Y", 1), ("maybe yes", None)],
    "seedbench": [("A", 1), ("A box.", 1), ("c: A cat", 0), ("E", None)],
    "ai2d": [("a", 1), ("A. box", 1), ("(B)", 0), ("option A", None), ("dog", None)],
    "infovqa": [("25%", 1), ("a quarte", 8 / 9), ("half", 0)],
    "ocrbench": [("It says Centre.", 1), ("CENT", 0)],
    "hallusionbench": [("Yes, it is.", 1), ("No.", 0), ("perhaps", 0)],
    "screenspot": [("[0.6, 0.3, 0.8, 0.5]", 1), ("click (0.6, 0.5)", 1), ("[0.1, 0.5]", 0), ("the cross", None)],
    "mmmu": [("B", 1), ("It is (B).", 1), ("C", 0), ("dog", None), ("it says that it is a dog there", 1)],
    "mathvista": [("B", 1), ("8/11", 1), ("(A) 3/11", 0), ("3/11", 0), ("nothing", None)],
    "mmstar": [("B", 1), ("(B)", 1), ("The answer is B", 1), ("C", 0), ("none of these", None)],
    "xlrs": [("(B) 2", 1), ("B", 1), ("A B", 0), ("two", None)],
    "lrsvqa": [("3", 1), ("3.", 1), ("Three.", 1), ("threes", 1), ("four", 0)],
    "visual7w": [
        ("[0.5, 0.25, 0.75, 0.75]", 1),
        ("[0.45, 0.3, 0.7, 0.8]", 1),
        ("[0, 0, 0.2, 0.4]", 0),
        ("[0.7, 0.1, 1.0, 0.5]", 0),
    ],
    "videomme": [("B", 1), ("The best answer is: B. A dog.", 1), ("(C)", 0), ("the dog", None), ("A or B", 0)],
    "mvbench": [("B", 1), ("(B) A dog", 1), ("a dog", 1), ("A", 0), ("neither", None)],
    "mlvu": [("B", 1), ("(B) A dog", 1), ("A", 0), ("neither", None)],
    "longvideobench": [("B", 1), ("The best option is B", 1), ("E", 0), ("it", None)],
    "egoschema": [("B", 1), ("The answer is B", 1), ("E", 0), ("none of them", 0)],
    "activitynetqa": [("Dog.", 1), ("dogs", 0)],
}


@forms
def test_messy_answers_are_read(tmp_path: Path, name: str, form: str) -> None:
    question = loaded(tmp_path, name, form)[0]
    for answer, score in SCORES[name]:
        assert question.score(answer) == (None if score is None else pytest.approx(score)), answer


#: Answers to the first questions, and the resulting metrics; all other questions stay unanswered.
METRICS = {
    "own": (["box", "[0.5, 0.25, 0.7, 0.8]"], {"accuracy": 1, "names accuracy": 1, "other accuracy": 1}),
    "refcoco": (
        ["[0.5, 0.25, 0.75, 0.75]", "[0.6, 0.25, 1.0, 0.75]"],
        {"Acc@0.5": 0.5, "mIoU": 0.65, "centre accuracy": 0.5},
    ),
    "vqav2": (["yes", "no"], {"accuracy": 1.6 / 3}),
    # one right yes, one right no, one missed yes, one false yes: precision 1/2, recall 1/2
    "pope": (
        ["yes", "no", "no", "yes"],
        {"accuracy": 0.5, "F1": 0.5, "precision": 0.5, "recall": 0.5, "yes-rate": 0.5},
    ),
    "textvqa": (["shop"], {"accuracy": 0.9}),
    "gqa": (["table"], {"accuracy": 1, "open accuracy": 1}),
    "vizwiz": (["box"], {"accuracy": 0.6}),
    "chartqa": (["50", "spain"], {"relaxed accuracy": 0.5, "augmented": 1, "human": 0}),
    "docvqa": (["1/8/9"], {"ANLS": 5 / 6}),
    "scienceqa": (["B"], {"accuracy": 0}),
    # right in the first turn, wrong in the second
    "mmbench": (["A", "A"], {"circular accuracy": 0, "accuracy": 1}),
    "seedbench": (["A"], {"accuracy": 1, "image accuracy": 1}),
    "ai2d": (["A", "B"], {"accuracy": 0.5}),
    "infovqa": (["a quarte"], {"ANLS": 8 / 9}),
    "ocrbench": (
        ["centre", "X^{2}"],
        {"accuracy": 0.5, "Regular Text Recognition": 1, "Handwritten Mathematical Expression Recognition": 0},
    ),
    # one question of two has no wrong answer, and one figure of two
    "hallusionbench": (["yes", "no", "yes"], {"aAcc": 2 / 3, "qAcc": 0.5, "fAcc": 0.5}),
    "screenspot": (
        ["[0.6, 0.5]", "[0.5, 0.5]"],
        {"accuracy": 0.5, "desktop icon accuracy": 1, "web text accuracy": 0},
    ),
    "mmmu": (["B", "so it is 3.43", "half"], {"accuracy": 2 / 3, "mean of subjects": 0.5}),
    "mathvista": (
        ["A", "1.449", "[2007,2008]", "14.0"],
        {"accuracy": 0.75, "figure question answering": 0, "math word problem": 1},
    ),
    "mmstar": (["B", "A"], {"accuracy": 0.5, "mean of categories": 0.5}),
    "xlrs": (["B", "C A"], {"accuracy": 1, "mean of categories": 1}),
    "lrsvqa": (["3", "red", "3"], {"accuracy": 2 / 3, "mean of categories": 0.75}),
    "visual7w": (["[0.5, 0.25, 0.75, 0.75]"], {"accuracy": 1}),
    "videomme": (["B", "A"], {"accuracy": 0.5, "short accuracy": 1, "long accuracy": 0}),
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_a_few_answers(tmp_path: Path, name: str) -> None:
    questions = loaded(tmp_path, name, "published" if (name, "published") in EVERY_SET else "hub")
    answers, expected = METRICS[name]
    answered = list(zip(questions, answers + [""] * (len(questions) - len(answers)), strict=True))
    if name == "refcoco":
        answered = answered[:2]
    metrics = TASKS[name].metrics(answered)
    assert next(iter(metrics)) == TASKS[name].metric
    assert {key: metric.value for key, metric in metrics.items()} == pytest.approx(expected)
    for metric in metrics.values():
        assert not metric.points or metric.value == pytest.approx(sum(metric.points) / len(metric.points))


def test_synonyms() -> None:
    asked = [
        ("crimson", "Red"),
        ("car park", "parking lot"),
        ("car_park", "parking_lot"),
        ("Harbours", "harbor"),
        ("red", "harbor"),
        ("x", "x."),
    ]
    assert [exact_or_synonym(answer, ["pier", truth]) for answer, truth in asked] == [1, 0, 1, 1, 0, 1]


def test_without_wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SETS["lrsvqa", "published"](tmp_path)
    wordnet()._unload()
    with monkeypatch.context() as patched:
        patched.setattr("nltk.data.path", [])
        with pytest.raises(DataError, match=r"type `python -m nltk\.downloader wordnet`"):
            TASKS["lrsvqa"].load(tmp_path)
    assert len(TASKS["lrsvqa"].load(tmp_path)) == 3


def test_mme(tmp_path: Path) -> None:
    """Both answers on existence are right, and one on code reasoning: 100 (1 + 1) and 100 (1/2 + 0)."""
    questions = sorted(loaded(tmp_path, "mme", "published"), key=lambda question: question.category != "existence")
    metrics = TASKS["mme"].metrics(list(zip(questions, ["Yes", "No", "Yes", "Yes"], strict=True)))
    values = {key: metric.value for key, metric in metrics.items()}
    assert values == {"accuracy": 0.75, "accuracy+": 0.5, "perception": 200, "cognition": 50}
    assert len(metrics["accuracy+"].points) == 2


def test_mmbench_turns_are_those_of_the_published_copies(tmp_path: Path) -> None:
    made, published = (loaded(tmp_path / form, "mmbench", form) for form in _made(tmp_path, "published", "copies"))
    assert [(question.id, question.text, question.group) for question in made] == [
        (question.id, question.text, question.group) for question in published
    ]
    for questions in (made, published):
        assert [question.score("B") for question in questions] == [0, 1]


def _made(folder: Path, *names: str) -> Sequence[str]:
    for name in names:
        (folder / name).mkdir()
    return names


def test_a_limit_takes_whole_groups(tmp_path: Path) -> None:
    questions = loaded(tmp_path, "mme", "published")
    assert [question.id for question in limit_questions(questions, 1)] == [question.id for question in questions[:2]]


def test_several_images(tmp_path: Path) -> None:
    image, video = loaded(tmp_path, "seedbench", "hub")
    assert (len(image.open_images()), len(video.open_images())) == (1, 3)
    assert str(video.images[2]).endswith("test-00000-of-00001.parquet, row 1, image[2]")
    assert [len(question.images) for question in loaded(tmp_path / "mmmu", "mmmu", "hub")] == [2, 1, 1]


def test_a_model_that_knows_no_instructions(tmp_path: Path) -> None:
    """The bundled model gets bare questions."""
    SETS["gqa", "published"](tmp_path)
    assert TASKS["gqa"].load(tmp_path, style=STYLES["bundled"])[0].text == "What is the box on?"
