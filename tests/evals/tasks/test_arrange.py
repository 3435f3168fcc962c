"""Downloads from the Hub, in the published layout, are arranged into the folders that tasks read."""

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.files.tasks import SETS, VIDEO_SETS

from tokenprune.errors import DataError, SettingError
from tokenprune.evals.cli import main
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.arrange import arrange
from tokenprune.evals.tasks.base.published import published_sets

EVERY_SET = SETS | VIDEO_SETS
FORMS = {"mvbench": "published", "longvideobench": "published"}
ON_HUB = [name for name, about in published_sets().items() if about.hub]


def snapshot(folder: Path, name: str) -> Path:
    """Write a tiny snapshot of the first repository of a task, its videos in archives."""
    twin = {"screenspot-v2": "screenspot", "refcoco+": "refcoco", "refcocog": "refcoco"}.get(name, name)
    EVERY_SET[twin, FORMS.get(name, "hub")](folder)
    for pattern, place in TASKS[name].published.hub[0].archives.items():
        videos = sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".mkv", ".jpg"))
        archive = folder / pattern.replace("*", "01")
        archive.parent.mkdir(exist_ok=True)
        if ".tar" in pattern:
            with tarfile.open(folder / "all", "w") as tar:
                tar.add(folder / "videos", "videos")
            whole = (folder / "all").read_bytes()
            (folder / pattern.replace("*", "aa")).write_bytes(whole[:700])
            (folder / pattern.replace("*", "ab")).write_bytes(whole[700:])
        else:
            with zipfile.ZipFile(archive, "w") as content:
                for video in videos:
                    content.write(video, video.relative_to(folder / place))
        for video in videos:
            video.unlink()
    return folder


def test_every_published_set_is_a_task() -> None:
    in_any_file = {"own", "rec", "vqa", "videoqa"}
    assert set(published_sets()) == set(TASKS) - in_any_file
    for about in published_sets().values():
        assert about.hub or about.files
        assert all(count > 0 for count in about.questions.values())


@pytest.mark.parametrize("name", ON_HUB)
def test_a_snapshot_is_arranged_and_read(tmp_path: Path, name: str) -> None:
    source = snapshot(tmp_path / "snapshot", name)
    found = arrange(TASKS[name], source, tmp_path / "sets" / name)
    assert arrange(TASKS[name], source, tmp_path / "sets" / name) == found  # repeated
    shutil.rmtree(source)  # nothing is left behind there
    questions = TASKS[name].load(tmp_path / "sets" / name)
    assert sum(found.values()) == len(questions) > 0
    for question in questions:
        assert question.open_images()
    known = TASKS[name].published.questions
    assert not known or name == "refcocog" or set(found) <= set(known), "splits are named as in sets.toml"


def gone(source: Path) -> None:
    shutil.rmtree(source)


def without_table(source: Path) -> None:
    next(source.glob("*/*.parquet")).unlink()


def truncated_table(source: Path) -> None:
    path = next(source.glob("*/*.parquet"))
    path.write_bytes(path.read_bytes()[:99])


def part_of_two(source: Path) -> None:
    path = next(source.glob("*/*.parquet"))
    path.rename(path.with_name("test-00000-of-00002.parquet"))


def without_archive(source: Path) -> None:
    next(source.glob("*.zip")).unlink()


def truncated_archive(source: Path) -> None:
    path = next(source.glob("*.zip"))
    path.write_bytes(path.read_bytes()[:-40])


def lost_part(source: Path) -> None:
    (source / "videos.tar.part.ab").unlink()


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("ocrbench", gone, r"snapshot: no such folder; type `hf download echo840/OCRBench"),
        ("ocrbench", without_table, r"snapshot: no data/\*\.parquet of echo840/OCRBench; type `hf download"),
        ("ocrbench", truncated_table, r"test-00000-of-00001\.parquet: not a complete parquet file .*download it again"),
        ("ocrbench", part_of_two, r"snapshot/data: holds 1 of the 2 files of test"),
        ("videomme", without_archive, r"snapshot: no videos_chunked_\*\.zip of lmms-lab/Video-MME; type `hf download"),
        ("videomme", truncated_archive, r"videos_chunked_01\.zip: not a complete archive .*download it again"),
        ("longvideobench", lost_part, r"videos\.tar\.part\.aa: not a complete archive .*download it again"),
    ],
)
def test_a_broken_snapshot(tmp_path: Path, name: str, broken: Callable[[Path], None], message: str) -> None:
    broken(snapshot(tmp_path / "snapshot", name))
    with pytest.raises(DataError, match=message) as raised:
        arrange(TASKS[name], tmp_path / "snapshot", tmp_path / "sets")
    assert "\n" not in str(raised.value)


def test_a_set_that_is_not_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"'visual7w' has no known repository.*sets\.md"):
        arrange(TASKS["visual7w"], tmp_path, tmp_path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sets"])
    assert "lmms-lab/POPE" in capsys.readouterr().out
    source = snapshot(tmp_path / "snapshot", "pope")
    main(["sets", "arrange", "pope", "--from", str(source), "--to", str(tmp_path / "sets")])
    assert "POPE random: 2 questions (published: 3,000)" in capsys.readouterr().out
    assert TASKS["pope"].is_in(tmp_path / "sets" / "pope")
