"""Reading videos: which frames are read at any frame rate, and errors for files that are not videos."""

from pathlib import Path

import numpy as np
import pytest
from helpers.files.videos import SIZE, grey, levels, turned, write_video
from PIL import Image

from tokenprune.errors import DataError
from tokenprune.evals.reading import videos
from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.reading.videos import FrameFolder, is_video, read_clip

GREYS = [20, 60, 100, 140, 180, 220, 240, 40]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Eight frames in four seconds."""
    return write_video(tmp_path / "clip.mp4", [grey(level) for level in GREYS])


def test_frames_are_those_in_the_middles_of_equal_parts(clip: Path) -> None:
    read = read_clip(clip, 4)
    assert read.times == [0.5, 1.5, 2.5, 3.5]
    assert read.duration == pytest.approx(4.0)
    assert levels(read.frames) == [60, 140, 220, 40]
    assert {frame.size for frame in read.frames} == {SIZE}
    assert {frame.mode for frame in read.frames} == {"RGB"}


def test_more_frames_than_there_are_come_again(clip: Path) -> None:
    assert levels(read_clip(clip, 16).frames) == [level for level in GREYS for _ in range(2)]


def test_a_part_of_a_video(clip: Path) -> None:
    read = read_clip(clip, 2, start=1.0, end=2.0)
    assert read.times == [1.25, 1.75]
    assert levels(read.frames) == [100, 140]
    assert levels(read_clip(clip, 2, start=3.0).frames) == [240, 40]
    with pytest.raises(DataError, match=r"clip.mp4: no frames between 5 s and 4 s"):
        read_clip(clip, 2, start=5.0)


def test_a_variable_frame_rate_changes_nothing(tmp_path: Path) -> None:
    """Three frames, the second of which is shown for most of the time."""
    path = write_video(tmp_path / "varied.mkv", [grey(20), grey(100), grey(220)], [0.0, 0.5, 3.5])
    read = read_clip(path, 4)
    assert levels(read.frames) == [20 if time < 0.5 else 100 if time < 3.5 else 220 for time in read.times]
    assert levels(read.frames).count(100) == 3


def test_frames_far_apart_are_searched_for(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames are the same as when decoding everything, but fewer are decoded."""
    found = []
    begin = videos._Player.begin

    def counted(self: object, frame: object) -> float:
        found.append(frame)
        return begin(self, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(videos._Player, "begin", counted)
    monkeypatch.setattr(videos, "SEEK", 1.0)
    long = write_video(clip.with_name("long.mp4"), [grey(level) for level in GREYS * 8], gop=4)
    searched = read_clip(long, 3)
    n_searched = len(found)
    monkeypatch.setattr(videos, "SEEK", 1e9)
    assert levels(searched.frames) == levels(read_clip(long, 3).frames)
    assert n_searched < (len(found) - n_searched) / 2


def test_a_turned_video_is_upright(tmp_path: Path) -> None:
    """The left half is stored white; the header rotates the video clockwise, so white is shown at the top."""
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:, :32] = 250
    path = write_video(tmp_path / "turned.mp4", [Image.fromarray(stored)] * 3)
    assert read_clip(path, 1).frames[0].size == (64, 48)
    turned(path)
    (frame,) = read_clip(path, 1).frames
    assert frame.size == (48, 64)
    assert np.asarray(frame)[:28].mean() > 230
    assert np.asarray(frame)[36:].mean() < 20


def test_what_is_no_video(tmp_path: Path, clip: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(DataError, match=r"text.mp4: not a complete video \(.+\); download or encode it again"):
        read_clip(text, 2)
    half = tmp_path / "half.mp4"
    half.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(DataError, match=r"half.mp4: no video stream in this file, or the file is cut off"):
        read_clip(half, 2)
    with pytest.raises(DataError, match=r"nowhere.mp4: no such video"):
        read_clip(tmp_path / "nowhere.mp4", 2)


def test_a_video_that_is_cut_off(tmp_path: Path) -> None:
    """Its header is at the beginning and has the original length."""
    rng = np.random.default_rng(0)
    noisy = [Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)) for _ in range(32)]
    path = write_video(tmp_path / "noisy.mkv", noisy)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"noisy.mkv: (cut off: its last frame is at|not a complete video|.*how long)"):
        read_clip(path, 8)


def test_large_frames_are_refused(clip: Path) -> None:
    with allowing(max_image_pixels=1000), pytest.raises(DataError, match=r"3072 pixels.*--max-image-pixels 3072"):
        read_clip(clip, 2)


def test_a_folder_of_frames(tmp_path: Path) -> None:
    for number, level in enumerate(GREYS[:6]):
        grey(level).save(tmp_path / f"{number:05}.png")
    read = read_clip(FrameFolder(tmp_path, 3.0), 2)
    assert read.duration == 2.0
    assert levels(read.frames) == [60, 180]
    assert levels(read_clip(FrameFolder(tmp_path, 3.0), 1, start=1.0).frames) == [180]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no frames in this folder"):
        read_clip(FrameFolder(tmp_path / "nothing", 3.0), 1)


def test_videos_are_told_by_their_names() -> None:
    assert is_video(Path("a/B.MP4"))
    assert is_video(Path("a.webm"))
    assert not is_video(Path("a.jpg"))
