"""Files, run folders' identities, results, and where they come from."""

import errno
import inspect
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from helpers.files.evals import sample_image
from helpers.files.rows import row
from helpers.tiny import tiny_llava

import tokenprune
from tokenprune.errors import DataError, SettingError, UnsupportedError
from tokenprune.evals.bench.record import about
from tokenprune.evals.storage import files
from tokenprune.evals.storage.files import append, check_file, check_folder, lock_for_appending, naming, replace
from tokenprune.evals.storage.identity import check_same, record_identity
from tokenprune.evals.storage.provenance import class_identity, kernels, model_identity, tasks_identity
from tokenprune.evals.storage.results import FAILED, digest
from tokenprune.evals.storage.results_io import read, to_line
from tokenprune.evals.tasks.xlrs import Letters


def test_an_unfinished_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines"
    with lock_for_appending(path, "another run is writing it") as file:
        append(file, "one\ntw")
    with lock_for_appending(path, "another run is writing it") as file:
        append(file, "two\n")
    assert path.read_text() == "one\ntwo\n"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    lock = partial(lock_for_appending, tmp_path / "lines", "another run is writing it")
    with lock(), pytest.raises(SettingError, match=r"lines: another run is writing it\. Wait"):
        lock().__enter__()


def test_locks_need_a_posix_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with pytest.raises(UnsupportedError, match="POSIX system"):
        lock_for_appending(tmp_path / "lines", "another run is writing it").__enter__()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(UnsupportedError, match=r"lines: cannot be locked \(No locks available\)\. Name an --output"):
        lock_for_appending(tmp_path / "lines", "another run is writing it").__enter__()


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    replace(tmp_path / "run.json", "old")
    replace(tmp_path / "run.json", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_by_whoever_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        open("/dev/full", "ab", buffering=0) as file,
        pytest.raises(DataError, match=r"/dev/full: cannot be written: No space left on device\. Make room"),
    ):
        append(file, "one\n")
    monkeypatch.setattr(files, "_cut_unfinished_line", full)
    with pytest.raises(DataError, match="lines: cannot be written: No space left"):
        lock_for_appending(tmp_path / "lines", "another run is writing it").__enter__()


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError("image file is truncated")])
@pytest.mark.parametrize("guard", [naming, partial(lock_for_appending, doing="another run is writing it")])
def test_other_errors_while_a_file_is_written_are_not_the_files(tmp_path: Path, guard: Any, error: OSError) -> None:
    with pytest.raises(type(error)) as caught, guard(tmp_path / "lines"):
        raise error
    assert caught.value is error


def test_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_folder(tmp_path / "new" / "run")
    check_file(tmp_path / "new" / "a.json")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    check_file(tmp_path / "file")
    with pytest.raises(SettingError, match=r"file: cannot be a folder, because it is a file\. Name another --output"):
        check_folder(tmp_path / "file")
    with pytest.raises(SettingError, match=r"a/b: cannot be a folder, because .*/file is a file\. Name another --html"):
        check_folder(tmp_path / "file" / "a" / "b", "--html")
    with pytest.raises(SettingError, match=r": is a folder; name a file in it with --gif\."):
        check_file(tmp_path, "--gif")
    monkeypatch.setattr("os.access", lambda *_: False)  # permission bits do not bind root
    for check, path in ((check_folder, tmp_path / "new"), (check_file, tmp_path / "file")):
        with pytest.raises(SettingError, match=r"cannot be written, because .* read-only for you\. Change its perm"):
            check(path)


def test_differences_are_named() -> None:
    check_same({"seed": 0}, {"seed": 0}, "x.json: holds another run", "Name another --output.")
    with pytest.raises(SettingError, match=r"x: holds another run, with seed=0 and not seed=1\. Name another"):
        check_same({"seed": 0}, {"seed": 1}, "x: holds another run", "Name another --output.")
    many = dict.fromkeys("abcde", 0), dict.fromkeys("abcde", 1)
    with pytest.raises(SettingError, match=r"^x, with a=0, b=0, c=0 and not a=1, b=1, c=1, and 2 more\. Name another"):
        check_same(*many, "x", "Name another --output.")


def test_a_folder_holds_one_thing(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    record_identity(path, {"seed": 0, "ratios": (0.5, 0.25)}, "another training")
    record_identity(path, {"seed": 0, "ratios": (0.5, 0.25)}, "another training")
    with pytest.raises(SettingError, match=r"holds another training, with seed=0 and not seed=1\. Name another output"):
        record_identity(path, {"seed": 1, "ratios": (0.5, 0.25)}, "another training")
    for cut_off in (path.read_text()[:9], "[]"):
        path.write_text(cut_off)
        with pytest.raises(DataError, match=r"identity\.json.*(broken JSON: .* Name another|expected an object)"):
            record_identity(path, {"seed": 0}, "another training")


MODEL = dict.fromkeys(("class", "device", "dtype", "layers", "name"), "a")
A, B = 16 * "a", 16 * "b"


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        # Two whole objects, cut to their first values, may look the same.
        ({"model": MODEL}, {"model": MODEL | {"name": "b"}}, r"model\.name='a' and not model\.name='b'"),
        (
            {"data": {"own": {"digest": A}}},
            {"data": {"own": {"digest": B}}},
            "other own questions, right answers, images",
        ),
        ({"model": MODEL | {"weights": A}}, {"model": MODEL | {"weights": B}}, "other weights of the model"),
        ({"weights": A, "seed": 0}, {"weights": B, "seed": 1}, "seed=0 and not seed=1, with other weights"),
        ({"sources": 4 * A}, {"sources": 4 * B}, "another sources"),
    ],
)
def test_differences_within_objects_are_named_and_digests_in_words(one: Any, other: Any, said: str) -> None:
    with pytest.raises(SettingError, match=rf"^x, with {said}.*\. Name another"):
        check_same(one, other, "x", "Name another --output.", {"weights": "other weights"})


def test_several_right_letters_are_a_right_answer(tmp_path: Path) -> None:
    """If a run resumed after they changed, its answers would be scored partly by the old and partly by the new ones."""
    sample_image().save(tmp_path / "1.png")
    one, same, other = (
        tasks_identity(
            [Letters(task="xlrs", id="xlrs-1", images=(tmp_path / "1.png",), text="?", letters=frozenset(letters))]
        )
        for letters in ("AB", "BA", "AC")
    )
    assert one == same != other


@pytest.fixture
def precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("precision")
def test_a_lower_precision_of_float32_products_is_named() -> None:
    """Answers and times depend on it. Full precision is not, as in records from before."""
    model = tiny_llava()
    for record in (lambda: model_identity(model), lambda: about(model, "tiny", "sdpa", 24)):
        torch.set_float32_matmul_precision("highest")
        full = record()
        assert "float32_matmul" not in full
        torch.set_float32_matmul_precision("high")
        assert record() in [full | {"float32_matmul": name} for name in ("tf32", "high")]  # newer PyTorch, and older


def test_the_code_of_a_strategy_of_the_package_is_part_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes one in a clone changes no version, and would get the answers of the code before."""
    source, changed = inspect.getsource, tokenprune.DivPrune
    kinds = changed, tokenprune.Compose(tokenprune.PixelPrune(), changed(0.5))
    before = list(map(class_identity, kinds))
    monkeypatch.setattr(inspect, "getsource", lambda kind: source(kind) + "# changed" * (kind is changed))
    assert before[0].keys() == {"class"}
    assert all(was != class_identity(kind) for was, kind in zip(before, kinds, strict=True))


def test_kernels_from_the_hub_are_part_of_a_run() -> None:
    """Those that replace a forward, as the package kernels does: that loading asks for them says little."""
    model = tiny_llava()
    without = kernels(model)
    norm = model.model.language_model.norm
    assert norm.kernel_layer_name
    norm.forward = MethodType(lambda layer, states: states, norm)
    assert kernels(model) == {
        part: used | {"layers": "hub"} if part != "clip_vision_model" else used for part, used in without.items()
    }


RIGHT_AND_WRONG = row("Grid", "original", 0.25, {"val": [1.0, 0.0, None, None], "test": [1.0, 1.0]})


def test_a_split_is_not_paired_with_the_whole() -> None:
    val = RIGHT_AND_WRONG.of_split("val")
    assert (val.n, val.accuracy, val.unparsable) == (4, 0.25, 2)
    assert val.questions != RIGHT_AND_WRONG.questions  # must not be paired with the whole set
    with pytest.raises(ValueError, match="rec of scenes: no split 'train'; it has val, test"):
        RIGHT_AND_WRONG.of_split("train")


def test_no_question_could_be_asked(tmp_path: Path) -> None:
    failed = row("Grid", "original", 0.25, {"val": [FAILED, FAILED]})
    record = json.loads(to_line(failed), parse_constant=pytest.fail)
    assert (record["n"], record["failed"], record["accuracy"], record["interval"]) == (0, 2, None, None)
    (tmp_path / "rows.jsonl").write_text(to_line(failed) + "\n")
    assert read([tmp_path / "rows.jsonl"]) == [failed]


def test_other_questions_or_another_order_have_another_digest() -> None:
    assert digest(["rec-1", "rec-2"]) == digest(["rec-1", "rec-2"])
    assert len({digest(ids) for ids in (["rec-1", "rec-2"], ["rec-2", "rec-1"], ["rec-1"], ["rec-1rec-2"])}) == 4


def test_binary_scores_are_a_character_each() -> None:
    record = json.loads(to_line(RIGHT_AND_WRONG))
    assert record["scores"] == {"val": "10--", "test": "11"}
    assert (record["n"], record["accuracy"], record["unparsable"]) == (6, 0.5, 2)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    sure = {"metrics": {"F1": 0.5}, "intervals": {"F1": (0.25, 0.75)}}
    soft = row("Grid", "compact", 0.25, {"": [0.3, None, 1.0, 0.9]}, task="vqa", **sure)
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    one.write_text(f"{to_line(RIGHT_AND_WRONG)}\n{to_line(soft)}\n")
    two.write_text(f"{to_line(RIGHT_AND_WRONG)}\n")  # for example, both runs began with the unpruned model
    assert read([one, two]) == [RIGHT_AND_WRONG, soft]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (to_line(RIGHT_AND_WRONG)[:-5], r"rows\.jsonl, line 1, column \d+: broken JSON"),
        ('{"scenes": "scenes"}', r"line 1: no 'model'"),
        ("", r"rows\.jsonl: no results"),
        (
            to_line(RIGHT_AND_WRONG).replace('"images"', '"pictures"'),
            r'line 1: written before .* rename the key "pictures"',
        ),
        (
            f"{to_line(RIGHT_AND_WRONG)}\n{to_line(row('Grid', 'original', 0.25, {'val': [1.0]}))}",
            r"line 2: rec, Grid appears twice, with different scores, first in .*line 1\. Leave out one",
        ),
        (  # a different task, so that both would share a line of a table
            "\n".join(
                to_line(row("FoPru 2", "original", 0.25, {"": [1.0]}, task=task, settings={"keep_ratio": 0.25} | other))
                for task, other in (("rec", {"layer": 2, "cells": None}), ("vqa", {"layer": None, "cells": 2}))
            ),
            r"line 2: FoPru 2, .* and (cells|layer)=(2|None) in .*line 1, so one name stands for two setups\. Report",
        ),
    ],
    ids=["cut off", "other file", "empty", "version 0.1", "twice", "other settings"],
)
def test_a_broken_line_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read([path])


def test_rows_of_older_runs_are_read(tmp_path: Path) -> None:
    """They have no metrics, or metrics without intervals, and use `scenes` for the data set."""
    path, record = tmp_path / "rows.jsonl", json.loads(to_line(RIGHT_AND_WRONG))
    for newer in ("intervals", "metrics"):
        del record[newer]
        path.write_text(json.dumps(record) + "\n")
        assert read([path]) == [RIGHT_AND_WRONG]
    record["scenes"] = record.pop("dataset")
    path.write_text(json.dumps(record) + "\n")
    assert read([path]) == [RIGHT_AND_WRONG]
