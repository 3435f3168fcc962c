"""Fetch all sources: those of `stamps`, rendered emoji, wallpapers and fonts, each pinned."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tokenprune.evals.dev.train.sources.fetch import run_for, verify
from tokenprune.evals.dev.train.sources.stamps import fetch_sources
from tokenprune.evals.dev.train.vocabulary.nouns import code_points

FLUENT = ("@lobehub/fluent-emoji-3d", "1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58")
# Emoji as SVG, in packages of @iconify-json. Twemoji, which names them by code point, comes first. MIT (flat),
# Apache-2.0 (blob), CC-BY-4.0 (twemoji, emojione) and CC-BY-SA-4.0 (openmoji, emojione1).
ICONS = {
    "twemoji": ("twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "openmoji": ("openmoji", "1.2.29", "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5"),
    "flat": ("fluent-emoji-flat", "1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
    "blob": ("noto-v1", "1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"),
    "emojione": ("emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"),
    "emojione1": ("emojione-v1", "1.2.3", "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3"),
}
ICON_SIDE = 192  # px
DEBIAN = {
    "fonts-liberation": "3d5c47480067b9615f6bf9b0eda6eefcab9d837af609827015445e8e759b5b8c",
    "fonts-noto-color-emoji": "03141cd51c0e9ff8ad858fcf2d8234f8a00ae4d7a0872df43a71519359c54e8c",
    "mate-backgrounds": "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
    "plasma-workspace-wallpapers": "b521d36486817f7a44c26faf247b9528138cc1ea1e8b154442a757c7e31faa2c",
    "ukui-wallpapers": "6d49be70152e6d603163458e177e501deb0be8f2916389ccbfcf59b0d7fc0262",
}
# Wallpapers that show none of the things that are asked about.
WALLPAPERS = {
    "mate-backgrounds": (
        "desktop/Stripes.png desktop/Ubuntu-Mate-Cold-no-logo.png nature/Aqua.jpg nature/Blinds.jpg "
        "nature/Dune.jpg nature/GreenMeadow.jpg nature/RainDrops.jpg nature/Storm.jpg nature/Wood.jpg"
    ),
    "plasma-workspace-wallpapers": (
        "Altai BytheWater Canopee Cascade Cluster ColdRipple DarkestHour Elarun Flow Grey Honeywave IceCold Kay "
        "Kokkini Nexus Opal PastelHills Path Shell Volna summer_1am"
    ),
    "ukui-wallpapers": "2004default.jpg city.png desert.png fluent-color.png rhythm.jpg rollpaper.png string.jpg",
}
WALLPAPER_SIDE = 1200  # px
NOTO_SIZE = 109  # px; the only one that the font has


def fetch_all(folder: Path) -> None:
    """Fetch what `stamps` fetches, and `folder`/fluent, noto, wallpapers and fonts. What already exists is kept.

    Needs npm, pip, `apt-get download` and `dpkg-deb`. Packages that are in `folder`/downloads are not downloaded again.
    """
    fetch_sources(folder)
    if (folder / "complete-3").exists():
        return
    downloads = folder / "downloads"
    _unpack_fluent(_npm(FLUENT, downloads), folder / "fluent")
    names: dict[str, str] = {}
    for style, (package, version, digest) in ICONS.items():
        _draw_icons(_npm((f"@iconify-json/{package}", version, digest), downloads), folder / style, names)
    roots = {}
    for package, digest in DEBIAN.items():
        if not any(downloads.glob(f"{package}_*.deb")):
            run_for(package, ["apt-get", "download", "-qq", package], cwd=downloads)
        deb = next(downloads.glob(f"{package}_*.deb"))
        verify(deb, digest)
        roots[package] = folder / "unpacked" / package
        roots[package].mkdir(parents=True, exist_ok=True)
        run_for(package, ["dpkg-deb", "-x", str(deb), str(roots[package])])
    (folder / "fonts").mkdir(exist_ok=True)
    for font in roots["fonts-liberation"].rglob("*.ttf"):
        shutil.copy(font, folder / "fonts" / font.name)
    _render_noto(next(roots["fonts-noto-color-emoji"].rglob("NotoColorEmoji.ttf")), folder / "noto")
    _shrink_wallpapers(roots, folder / "wallpapers")
    (folder / "complete-3").touch()


def _npm(package: tuple[str, str, str], downloads: Path) -> Path:
    name, version, digest = package
    file = downloads / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not file.exists():
        run_for(name, ["npm", "pack", "--silent", f"{name}@{version}"], cwd=downloads)
    verify(file, digest)
    return file


def _unpack_fluent(archive: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    wanted = code_points()
    with tarfile.open(archive) as packed:
        for member in packed.getmembers():
            name = Path(member.name)
            code = name.stem.removesuffix("-fe0f")
            content = packed.extractfile(member)
            if name.suffix == ".webp" and code in wanted and content is not None:
                (folder / f"{code}.webp").write_bytes(content.read())


def _member(packed: tarfile.TarFile, name: str) -> bytes:
    content = packed.extractfile(name)
    assert content is not None
    return content.read()


def _draw_icons(archive: Path, folder: Path, names: dict[str, str]) -> None:
    """Render every emoji in use that the icon set has."""
    from resvg_py import svg_to_bytes  # only the training extra brings it

    folder.mkdir(exist_ok=True)
    with tarfile.open(archive) as packed:
        icons, own = (json.loads(_member(packed, f"package/{name}.json")) for name in ("icons", "chars"))
    names |= own
    for code in sorted(code_points()):
        name = names.get(code, "")
        name = icons.get("aliases", {}).get(name, {}).get("parent", name)
        icon = icons["icons"].get(name)
        if icon is not None:
            width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
            (folder / f"{code}.png").write_bytes(svg_to_bytes(svg_string=svg, width=ICON_SIDE, height=ICON_SIDE))


def _render_noto(font_file: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    font = ImageFont.truetype(str(font_file), NOTO_SIZE)
    for code in sorted(code_points()):
        image = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(image).text((8, 8), chr(int(code, 16)), font=font, embedded_color=True)
        if image.getbbox() is not None:
            image.crop(image.getbbox()).save(folder / f"{code}.png")


def _shrink_wallpapers(roots: dict[str, Path], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for package, names in WALLPAPERS.items():
        for name in names.split():
            files = [f for f in roots[package].rglob("*") if f"/{name}" in str(f) and f.suffix in (".jpg", ".png")]
            wide = [f for f in files if "screenshot" not in f.name and "_dark" not in str(f)]
            image = Image.open(max(wide, key=lambda file: (_is_wide(file), file.stat().st_size))).convert("RGB")
            image.thumbnail((WALLPAPER_SIDE, WALLPAPER_SIDE))
            image.save(folder / f"{Path(name).stem}.jpg", quality=92)


def _is_wide(file: Path) -> bool:
    with Image.open(file) as image:
        return image.width > image.height
