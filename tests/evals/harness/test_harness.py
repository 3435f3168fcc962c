"""The model for other evaluation harnesses: with the bundled weights, and inside lmms-eval if it is installed."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli
import torch

import tokenprune
from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.evals.harness.model import HarnessModel
from tokenprune.evals.models.bundled import MODEL, SCENES, SETTINGS
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.questions import limit_questions, load_questions
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks.base.question import Question

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def asked() -> list[Question]:
    return limit_questions(load_questions(SCENES, ["vqa"], style=STYLES["bundled"]), 4)


@pytest.fixture(scope="module")
def pruned() -> HarnessModel:
    return HarnessModel(str(MODEL), "fopru", keep_ratio=0.25, layer=-2.0, dtype="float32", device="cpu")


def turn(text: str, *images: Any) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


def conversation(sample: Question) -> list[dict[str, Any]]:
    return turn(sample.text, *sample.open_images())


def test_answers_are_those_of_tokenprune_eval(pruned: HarnessModel, asked: list[Question], tmp_path: Path) -> None:
    what = {"strategies": ["fopru:layer=-2"], "keep_ratios": [0.25], "position_ids": ["original"], "baselines": []}
    evaluate(output=tmp_path, tasks=["vqa"], limit=len(asked), dtype="float32", **what)
    own = {answer.id: answer for answer in RunFolder(tmp_path).answers().values()}
    replies = pruned.answers([conversation(sample) for sample in asked], {"max_new_tokens": 32, "until": ["\n\n"]})
    assert [reply.text for reply in replies] == [own[sample.id].text for sample in asked]
    assert len({reply.text for reply in replies}) > 1  # so answers depend on the images
    assert [reply.cost.kept for reply in replies] == [own[sample.id].kept for sample in asked]
    for sample, reply in zip(asked, replies, strict=True):
        assert (reply.cost.n_visual, reply.cost.n_kept) == (256, 64)
        assert reply.n_read == 64 + len(pruned.processor.tokenizer(prompt(pruned, sample))["input_ids"]) - 1


def prompt(harness: HarnessModel, sample: Question) -> str:
    return harness.processor.apply_chat_template(conversation(sample), add_generation_prompt=True)


def test_several_images_and_none(pruned: HarnessModel, asked: list[Question]) -> None:
    """In one batch, each row has its own answer and counts."""
    one, two = asked[0].open_images()[0], asked[1].open_images()[0]
    turns = [turn("what is on the left?"), turn("what is on the left?", one, two), conversation(asked[0])]
    replies = pruned.answers(turns, {"max_new_tokens": 4})
    assert [(reply.cost.n_visual, reply.cost.n_kept) for reply in replies] == [(0, 0), (512, 128), (256, 64)]
    alone = [pruned.answers([one], {"max_new_tokens": 4})[0] for one in turns]
    assert [reply.text for reply in replies] == [reply.text for reply in alone]
    assert replies[1].n_read - replies[0].n_read == 128 + 2 * (alone[2].n_read - 64 - words(pruned, asked[0]))


def words(harness: HarnessModel, sample: Question) -> int:
    """Return the number of tokens in a question's prompt without an image."""
    return harness.answers([turn(sample.text)], {"max_new_tokens": 1})[0].n_read


def test_beams(pruned: HarnessModel, asked: list[Question]) -> None:
    """Each row is repeated for its beams, but counted once."""
    one, two = asked[0].open_images()[0], asked[1].open_images()[0]
    turns = [turn("what is on the left?", one, two), conversation(asked[0])]
    replies = pruned.answers(turns, {"max_new_tokens": 4, "num_beams": 2})
    assert [(reply.cost.n_visual, reply.cost.n_kept) for reply in replies] == [(512, 128), (256, 64)]
    greedy = pruned.answers(turns, {"max_new_tokens": 4})
    assert [reply.n_read for reply in replies] == [reply.n_read for reply in greedy]


def test_generation_arguments(pruned: HarnessModel, asked: list[Question]) -> None:
    shown = conversation(asked[0])
    whole = pruned.answers([shown], {"max_new_tokens": 8, "temperature": 0, "top_p": 1.0, "do_sample": True})[0].text
    assert whole  # temperature 0 is greedy, whatever the other settings
    assert pruned.answers([shown], {"max_new_tokens": 8, "until": whole[1:]})[0].text == whole[0]
    assert pruned.answers([shown], {"max_new_tokens": 1})[0].n_written == 1
    with torch.random.fork_rng():
        hot = {"max_new_tokens": 8, "temperature": 50.0}
        drawn = {pruned.answers([shown], hot)[0].text for _ in range(4)}
    assert len(drawn) > 1


def test_likelihood(pruned: HarnessModel, asked: list[Question]) -> None:
    shown = conversation(asked[0])
    best = pruned.answers([shown], {"max_new_tokens": 8})[0].text
    options = {text: pruned.loss(shown, text) for text in (best, "yes", "giraffe", "seven")}
    assert min(options, key=lambda text: options[text][0]) == best
    assert [text for text, (_, is_greedy) in options.items() if is_greedy] == [best]
    labelled = pruned._encoded([shown], [best])
    n = labelled["input_ids"].shape[1] - pruned._encoded([shown], [""])["input_ids"].shape[1]
    labels = labelled["input_ids"].clone()
    labels[:, :-n] = -100
    with torch.inference_mode():
        assert options[best][0] == pytest.approx(float(pruned.model(**labelled, labels=labels).loss), abs=1e-5)
    with pytest.raises(SettingError, match="has no tokens"):
        pruned.loss(shown, "")


def test_a_keep_ratio_of_one_is_the_unpruned_model(asked: list[Question]) -> None:
    shown = conversation(asked[2])
    everything = HarnessModel(str(MODEL), "fopru", keep_ratio=1.0, dtype="float32", device="cpu")
    unpruned = HarnessModel(str(MODEL), dtype="float32", device="cpu")
    assert unpruned.loss(shown, "yes") == everything.loss(shown, "yes")
    (theirs,), (ours,) = (one.answers([shown], {"max_new_tokens": 4}) for one in (unpruned, everything))
    assert (theirs.text, theirs.n_read, theirs.cost.n_kept) == (ours.text, ours.n_read, ours.cost.n_kept)


def test_a_model_that_computes_nan_answers_nothing(asked: list[Question]) -> None:
    """Many models do in float16. Otherwise the harness would score whatever `generate` returns."""
    broken = HarnessModel(str(MODEL), "fopru", keep_ratio=0.25, dtype="float32", device="cpu")
    shown = conversation(asked[0])
    with torch.no_grad():
        broken.model.get_output_embeddings().weight[5] = torch.nan
    for generation in ({}, {"num_beams": 2}, {"temperature": 1.0}):
        with pytest.raises(UnsupportedError, match="NaN instead of logits"):
            broken.answers([shown], {"max_new_tokens": 4} | generation)
    with pytest.raises(UnsupportedError, match="NaN instead of logits"):
        broken.loss(shown, "yes")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"strategy": "fopro"}, "unknown strategy 'fopro'. Did you mean 'fopru'?"),
        ({"strategy": "fopru", "keep_ration": 0.5}, "unknown setting 'keep_ration'. Did you mean 'keep_ratio'?"),
        ({"strategy": "fopru", "positions_ids": "compact"}, "Did you mean 'position_ids'?"),
        ({"keep_ratio": 0.5}, "Without a strategy nothing is pruned; write strategy=fopru"),
        ({"strategy": "none.json"}, "no such settings file"),
    ],
)
def test_names_are_checked_before_anything_is_loaded(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError, match=re.escape(says)):
        HarnessModel("no/such/model", **arguments)


def test_words_of_a_command_line(pruned: HarnessModel) -> None:
    """lmms-eval passes -2 as -2.0, and everything that is not a number as text."""
    assert pruned.handle is not None
    assert pruned.handle.strategy == tokenprune.FoPru(keep_ratio=0.25, layer=-2)
    file = str(SETTINGS / "searched_25.json")
    read = HarnessModel(str(MODEL), file, layer="None", recycle=False, position_ids="compact", device="cpu").handle
    assert read is not None
    assert read.position_ids == "compact"
    assert isinstance(read.strategy, tokenprune.VFlowOpt)
    assert (read.strategy.recycle, read.strategy.layer) == (False, None)


def test_a_video_is_refused(pruned: HarnessModel) -> None:
    with pytest.raises(UnsupportedError, match="the task has video"):
        pruned.answers([[{"role": "user", "content": [{"type": "video", "video": "x.mp4"}]}]], {})


def test_the_entry_point_is_there() -> None:
    settings = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    ((name, where),) = settings["project"]["entry-points"]["lmms_eval.models"].items()
    module, attribute = where.split(":")
    assert (name, attribute) == ("tokenprune", "MANIFEST")
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None


def test_lmms_eval_finds_it(asked: list[Question]) -> None:
    models = pytest.importorskip("lmms_eval.models")
    chat, simple = (models.get_model("tokenprune", force_simple=simple) for simple in (False, True))
    assert (chat.is_simple, simple.is_simple) == (False, True)
    with pytest.raises(SettingError, match="Did you mean 'keep_ratio'"):
        chat.create_from_arg_string("pretrained=no/such/model,strategy=fopru,keep_ration=0.25", {"batch_size": 2})
    with pytest.raises(SettingError, match="batch_size='auto'"):
        chat.create_from_arg_string("pretrained=no/such/model", {"batch_size": "auto"})
    model = simple.create_from_arg_string(f"pretrained={MODEL},strategy=fopru,keep_ratio=0.25", {"device": "cpu"})
    question = asked[1]  # the pruned model answers it correctly
    model.task_dict = {"t": {"test": [question.open_images()]}}
    instance = importlib.import_module("lmms_eval.api.instance").Instance
    requests = [
        instance(
            request_type="loglikelihood",
            arguments=(question.text, option, lambda doc: doc, 0, "t", "test"),
            idx=0,
            metadata={"task": "t", "doc_id": 0, "repeats": 1},
        )
        for option in ("orange", "yes")
    ]
    (right, is_greedy), (wrong, _) = model.loglikelihood(requests)
    assert right < wrong
    assert is_greedy


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_its_command_gives_the_same_answers(processes: str) -> None:
    pytest.importorskip("lmms_eval")
    command = [sys.executable, "-m", "tokenprune.evals.dev.lmms_agreement", sys.executable, "--questions", "6"]
    command += ["--strategies", "fopru:layer=-2", "--processes", processes]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
