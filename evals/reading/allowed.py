"""What this process may read of a data set: which files, images up to which size, and how many frames of a video."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from tokenprune.errors import DataError
from tokenprune.evals.defaults import FRAMES, MAX_IMAGE_PIXELS


@dataclass(frozen=True)
class Allowed:
    """image_roots: folders outside the data folder that images may be in. max_image_pixels: of one image.
    A file of a few kilobytes can claim any size. frames: how many are read of a video.
    """

    image_roots: tuple[Path, ...] = ()
    max_image_pixels: int = MAX_IMAGE_PIXELS
    frames: int = FRAMES


_BY_DEFAULT = Allowed()
_allowed: ContextVar[Allowed] = ContextVar("allowed")


def allowed() -> Allowed:
    return _allowed.get(_BY_DEFAULT)


@contextmanager
def allowing(
    image_roots: Sequence[str | Path] = (), max_image_pixels: int = MAX_IMAGE_PIXELS, frames: int = FRAMES
) -> Iterator[None]:
    """Change what is allowed inside a `with` block. DataError if a root is not a folder."""
    roots = tuple(map(Path, image_roots))
    for root in roots:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder of images")
    token = _allowed.set(Allowed(roots, max_image_pixels, frames))
    try:
        yield
    finally:
        _allowed.reset(token)


def find_inside(folder: Path, names: Sequence[str], where: str, what: str = "image") -> Path:
    """Return the first of the files that exists; `what` it is, for errors. DataError, naming `where`, if none does.

    A file outside `folder`, by an absolute name, by `..` or by a link, is not looked for unless it is inside one of the
    `image_roots`.
    """
    for name in names:
        try:
            path = _as_stored(folder / name)
            real = Path(os.path.realpath(path))
        except (OSError, ValueError) as error:
            raise DataError(f"{where}: {name!r} cannot name a file ({error})") from error
        if not any(real.is_relative_to(os.path.realpath(root)) for root in (folder, *allowed().image_roots)):
            raise DataError(
                f"{where}: {what} {name!r} is {real}, outside the data folder {folder}, so it was not opened. If you "
                f"trust this data set, add --image-root {real.parent}"
            )
        if _is_file(path):
            return path
    others = f" (or {' or '.join(names[1:])})" if names[1:] else ""
    raise DataError(f"{where}: missing {what} {folder / names[0]}{others}{_instead(folder, names[0])}")


def _instead(folder: Path, name: str) -> str:
    """Return a hint for a file name that does not exist in the folder; "" if there is none."""
    path, with_slashes = folder / name, name.replace("\\", "/")
    if path.is_dir():
        return "; this is a folder, write the path of a file in it"
    if with_slashes != name and _is_file(folder / with_slashes):
        return f"; write {with_slashes!r}, with slashes"
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    alike = sorted(name for name in os.listdir(path.parent) if Path(name).stem.casefold() == path.stem.casefold())
    return f"; there is {path.with_name(alike[0])}" if alike else ""


def _as_stored(path: Path) -> Path:
    """Return the path with the file name as its folder has it: macOS decomposes accented letters, other systems do
    not."""
    if path.name.isascii() or _is_file(path) or not path.parent.is_dir():
        return path
    name = normalize("NFC", path.name)
    return next((file for file in path.parent.iterdir() if normalize("NFC", file.name) == name), path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # for a name that is too long
        return False
