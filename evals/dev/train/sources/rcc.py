"""Read the files packed in a Qt binary resource file (.rcc, format versions 1 to 3)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_ZLIB, _FOLDER, _ZSTD = 1, 2, 4


def read_rcc(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (path inside the resource, content) of every file. Raises ValueError if it is not a .rcc file."""
    blob = file.read_bytes()
    if blob[:4] != b"qres":
        raise ValueError(f"{file} is not a Qt resource file: it starts with {blob[:4]!r}, not b'qres'")
    version, tree, data, names = struct.unpack(">4I", blob[4:20])
    entry_size = 14 if version == 1 else 22  # version 2 added a time stamp

    def walk(index: int, parent: str) -> Iterator[tuple[str, bytes]]:
        start = tree + index * entry_size
        name_at, flags = struct.unpack(">IH", blob[start : start + 6])
        (length,) = struct.unpack(">H", blob[names + name_at : names + name_at + 2])
        name = blob[names + name_at + 6 : names + name_at + 6 + 2 * length].decode("utf-16-be")
        path = f"{parent}/{name}" if parent else name
        if flags & _FOLDER:
            count, first = struct.unpack(">II", blob[start + 6 : start + 14])
            for child in range(first, first + count):
                yield from walk(child, path if index else "")
            return
        (at,) = struct.unpack(">I", blob[start + 10 : start + 14])
        (size,) = struct.unpack(">I", blob[data + at : data + at + 4])
        content = blob[data + at + 4 : data + at + 4 + size]
        if flags & _ZLIB:
            content = zlib.decompress(content[4:])  # Qt writes the uncompressed size first
        elif flags & _ZSTD:
            import zstandard  # only the training extra brings it

            content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
        yield path, content

    yield from walk(0, "")
