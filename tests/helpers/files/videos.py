"""Small video files, made by the library that reads them."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

av: Any = pytest.importorskip("av")
SIZE = (64, 48)


def grey(level: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Return a frame of one grey level, which compression hardly changes."""
    return Image.new("RGB", size, (level, level, level))


def write_video(
    path: Path,
    frames: Sequence[Image.Image],
    times: Sequence[float] | None = None,
    *,
    fps: int = 2,
    codec: str = "mpeg4",
    gop: int = 4,
) -> Path:
    """Write frames that begin at these times in seconds, or at equal intervals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = gop
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * (number / fps if times is None else times[number]))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def levels(frames: Sequence[Image.Image]) -> list[int]:
    """Return the grey level of each frame, rounded to tens."""
    return [round(float(np.asarray(frame).mean()) / 10) * 10 for frame in frames]


def turned(path: Path) -> None:
    """Mark an MP4 file as rotated by a quarter turn, in the matrix of its track's header, as phones do."""
    content = bytearray(path.read_bytes())
    begin = content.index(b"tkhd") + 4 + 40
    matrix = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    content[begin : begin + 36] = b"".join((one & 0xFFFFFFFF).to_bytes(4, "big") for one in matrix)
    path.write_bytes(content)
