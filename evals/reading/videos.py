"""Read frames of a video as a model should see them: upright, in RGB, evenly spaced in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tokenprune.errors import DataError, to_install
from tokenprune.evals.reading.allowed import allowed
from tokenprune.evals.reading.images import StoredImage, open_image

#: Endings of files that are read as videos; others are images.
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"})
#: From this many seconds to the next frame on, seek to it instead of decoding all frames up to it.
SEEK = 10.0
#: Seconds for which the last frame is shown if the file does not say.
LAST = 1.0

#: Iterates over frames as they are read, to show progress.
Track = Callable[[Iterable[Image.Image]], Iterable[Image.Image]]


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a video, ascending in time.

    times: of the frames, in seconds from the video's beginning. duration: of the whole video, in seconds.
    """

    frames: Sequence[Image.Image]
    times: Sequence[float]
    duration: float


@dataclass(frozen=True)
class FrameFolder:
    """A video that is distributed as a folder of its frames, in the order of their names, `fps` per second."""

    path: Path
    fps: float

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.path.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))

    def read_bytes(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.files)


@dataclass(frozen=True)
class VideoFrame:
    """The frame shown in the middle of `length` seconds of a video from `start` on."""

    path: Path
    start: float
    length: float

    def open(self) -> Image.Image:
        """Return it as `read_clip` does. DataError, naming the file, as there."""
        return read_clip(self.path, 1, self.start, self.start + self.length).frames[0]


def is_video(path: Path) -> bool:
    """Whether a file is read as a video, by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_clip(
    stored: StoredImage,
    n_frames: int,
    start: float = 0.0,
    end: float | None = None,
    track: Track = lambda frames: frames,
) -> Clip:
    """Return `n_frames` frames: those shown in the middles of as many equal parts of a video.

    A frame is what is shown at a given time, so a variable frame rate makes no difference.

    start, end: the part of the video that is read, in seconds; None is its end.

    DataError, naming the file, if it is not a video, broken, cut off, without timestamps, or larger than is allowed.
    """
    if isinstance(stored, FrameFolder):
        return _folder_clip(stored, n_frames, start, end, track)
    assert isinstance(stored, Path)
    with _opened(stored) as (container, stream):
        duration = _duration(stored, container, stream)
        times = middles(stored, n_frames, start, duration if end is None else min(end, duration))
        player = _Player(stored, container, stream)
        frames = list(track(player.at(time) for time in times))
    return Clip(frames, times, duration)


def middles(stored: object, n_frames: int, start: float, end: float) -> list[float]:
    """Return the middles of `n_frames` equal parts of the time from `start` to `end`."""
    if not start < end:
        raise DataError(f"{stored}: no frames between {start:g} s and {end:g} s; the video is shorter, or empty")
    return [start + (end - start) * (2 * number + 1) / (2 * n_frames) for number in range(n_frames)]


def _folder_clip(folder: FrameFolder, n_frames: int, start: float, end: float | None, track: Track) -> Clip:
    files = folder.files
    if not files:
        raise DataError(f"{folder}: no frames in this folder; extract the set again")
    duration = len(files) / folder.fps
    times = middles(folder, n_frames, start, duration if end is None else min(end, duration))
    frames = (open_image(files[int(time * folder.fps)]) for time in times)
    return Clip(list(track(frames)), times, duration)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The file and its first video stream."""
    av = _library()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(
                    f"{path}: no video stream in this file, or the file is cut off; provide a complete video file"
                )
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            n_pixels, most = stream.width * stream.height, allowed().max_image_pixels
            if n_pixels > most:
                raise DataError(
                    f"{path}: frames of {n_pixels} pixels, and at most {most} are decoded. If you trust this file, add "
                    f"--max-image-pixels {n_pixels}"
                )
            yield container, stream
    except av.FFmpegError as error:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{path}: no such video") from error
        raise DataError(f"{path}: not a complete video ({error.strerror}); download or encode it again") from error


def _library() -> Any:
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(f"videos are read with PyAV, which is not installed. Type: {to_install('evals')}") from error
    return av


def _duration(path: Path, container: Any, stream: Any) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None:
        return container.duration / 1_000_000  # FFmpeg's own time base
    raise DataError(
        f"{path}: the file does not say how long the video is; rewrite it: ffmpeg -i {path.name} -c copy new.mp4"
    )


def upright(frame: Any) -> Image.Image:
    """Return a decoded frame in RGB, rotated as the file says."""
    image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


class _Player:
    """Decodes an opened file forwards, and returns the frames shown at ascending times."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self.path, self.container, self.stream = path, container, stream
        self.shown: Any = None
        self.frames: Iterator[Any] = container.decode(stream)
        self.coming: Any = next(self.frames, None)
        if self.coming is None:
            raise DataError(f"{path}: no frames in this video; download or encode it again")

    def at(self, time: float) -> Image.Image:
        """The frame that is shown at a time, in seconds."""
        if time - self.begin(self.shown or self.coming) > SEEK:
            self.seek(time)
        while self.coming is not None and self.begin(self.coming) <= time:
            self.shown, self.coming = self.coming, next(self.frames, None)
        frame: Any = self.shown or self.coming  # the first frame is shown even before it begins
        if self.coming is None and time > self.begin(frame) + self.length(frame):
            raise DataError(
                f"{self.path}: cut off: its last frame is at {self.begin(frame):.1f} s, but its header says that it "
                f"lasts beyond {time:.1f} s; download it again"
            )
        if frame.is_corrupt:
            raise DataError(f"{self.path}: broken frame at {self.begin(frame):.1f} s; download or encode it again")
        return upright(frame)

    def seek(self, time: float) -> None:
        """Continue from the last key frame before a time; from the first frame if the file is not seekable."""
        first = self.stream.start_time or 0
        for target in (first + int(time / self.stream.time_base), first):
            self.container.seek(target, stream=self.stream)
            self.frames, self.shown = self.container.decode(self.stream), None
            self.coming = next(self.frames, None)
            if self.coming is not None and self.begin(self.coming) <= time:
                return

    def begin(self, frame: Any) -> float:
        """The time from which a frame is shown, in seconds."""
        if frame.pts is None:
            raise DataError(
                f"{self.path}: frames without timestamps; rewrite it with timestamps: ffmpeg -fflags +genpts -i "
                f"{self.path.name} new.mp4"
            )
        return float((frame.pts - (self.stream.start_time or 0)) * frame.time_base)

    def length(self, frame: Any) -> float:
        """How long a frame is shown, in seconds."""
        return max(LAST, float(frame.duration * frame.time_base) if frame.duration else 0.0)
