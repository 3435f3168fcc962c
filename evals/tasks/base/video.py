"""Questions about videos."""

import re
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tokenprune.errors import DataError
from tokenprune.evals.reading.allowed import allowed
from tokenprune.evals.reading.records import Record
from tokenprune.evals.reading.videos import Clip, FrameFolder, read_clip
from tokenprune.evals.tasks.base.choices import Choice
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.short_answers import ShortAnswer


@dataclass(frozen=True, kw_only=True)
class VideoQuestion(Question, ABC):
    """A question about a video, which takes the place of images.

    n_frames: how many frames are read. start, end: the part of the video that is shown, in seconds; None is its end.
    """

    n_frames: int
    start: float = 0.0
    end: float | None = None

    def open_clip(self) -> Clip:
        (video,) = self.images
        return read_clip(video, self.n_frames, self.start, self.end)

    def open_images(self) -> list[Image.Image]:
        """Return the frames."""
        return list(self.open_clip().frames)


@dataclass(frozen=True, kw_only=True)
class VideoChoice(VideoQuestion, Choice):
    """A multiple-choice question about a video."""


@dataclass(frozen=True, kw_only=True)
class VideoAnswer(VideoQuestion, ShortAnswer):
    """An open question about a video."""


def find_frames(record: Record, folder: Path, name: str, fps: float) -> FrameFolder:
    """Return a folder of frames in the data folder."""
    path = folder / name
    if not path.is_dir():
        raise DataError(f"{record.where}: missing folder of frames {path}; extract the set's archives")
    frames = FrameFolder(path, fps)
    if frames.files:
        record.find_image(folder, f"{name}/{frames.files[0].name}")  # checks that it is inside the data folder
    return frames


def marked(options: Sequence[str], where: str) -> dict[str, str]:
    """Return options that begin with their letters, as `A. a dog` and `(A) a dog`, by letter."""
    by_letter = {}
    for option in options:
        match = re.fullmatch(r"\s*\(?([A-Z])[.):]\s*(.*?)\s*", option, re.DOTALL)
        if match is None or match[1] in by_letter:
            raise DataError(f"{where}: option {option!r} does not begin with a letter of its own; correct the file")
        by_letter[match[1]] = match[2]
    return by_letter


def frames_read() -> int:
    """How many frames of a video are read."""
    return allowed().frames
