"""The pictures that scenes are drawn from, and which of them training never sees."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tokenprune.evals.dev.train.scenes.assets import HELD_OUT_BACKGROUNDS, TRAINING_BACKGROUNDS
from tokenprune.evals.dev.train.version_1.scenes import SOLID, CutOut


@dataclass(frozen=True)
class Assets:
    cutouts: list[CutOut]
    backgrounds: list[Image.Image]


def nouns() -> list[str]:
    """Return every noun that the model is taught, sorted."""
    return sorted(files_by_noun())


def load_assets(sources: Path, *, held_out_cutouts: bool, held_out_backgrounds: bool) -> Assets:
    """Return cut-outs and backgrounds, those of training or held-out ones.

    Of a noun with several cut-outs, the last one is held out; a noun with only one is used in training only.
    """
    cutouts = []
    for noun, files in files_by_noun().items():
        seen, unseen = (files[:-1], files[-1:]) if len(files) > 1 else (files, [])
        for file in unseen if held_out_cutouts else seen:
            cutouts.append(CutOut(noun, file, _cropped(_open(sources / "stamps" / file, "RGBA"))))
    wanted = HELD_OUT_BACKGROUNDS if held_out_backgrounds else TRAINING_BACKGROUNDS
    files = [sources / "backgrounds" / f"{name}.jpg" for name in wanted]
    if not held_out_backgrounds:
        files += sorted((sources / "monuments").glob("*.webp"))
    return Assets(cutouts, [_scaled(_open(file, "RGB")) for file in files])


def files_by_noun() -> dict[str, list[str]]:
    return json.loads((Path(__file__).parent / "cutouts.json").read_text())


def _open(file: Path, mode: str) -> Image.Image:
    try:
        return Image.open(file).convert(mode)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{file} is missing. Fetch the sources: python -m tokenprune.evals.dev.train.sources.stamps FOLDER, with "
            "the folder of --sources"
        ) from None


def _full_where_solid(alpha: Any) -> Any:
    return 255 * (alpha > SOLID)


def _cropped(picture: Image.Image) -> Image.Image:
    solid = picture.getchannel("A").point(_full_where_solid)
    return picture.crop(solid.getbbox())


def _scaled(picture: Image.Image, longest: int = 1600) -> Image.Image:
    picture.thumbnail((longest, longest))
    return picture
