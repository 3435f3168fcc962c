"""Cut-outs, backgrounds and fonts, those of training or held-out ones."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageFont

from tokenprune.evals.dev.train.scenes.color import color_word
from tokenprune.evals.dev.train.vocabulary.nouns import Noun, nouns

# Held out of training. All are CC0, so that the bundled sets add no licence to those of the cut-outs.
HELD_OUT_BACKGROUNDS = (
    "lake-sherburne",
    "roman-colosseum",
    "singaporean-cityscape",
    "extreme-desert-hike",
    "tea-gardens",
    "casa-mila",
)
TRAINING_BACKGROUNDS = (
    "abstract-spiral",
    "beacon-street-sunset",
    "high-trestle-trail",
    "ocean-waves",
    "piazza-gae-aulenti",
    "valley-midnight",
    "waves-midnight",
    "Bridge_by_Sander_Klootwijk",
    "Dragonfly_by_Bolly",
    "Picture_0B_by_freespace",
    "aitzgorri_by_Aitzol_Berasategi",
    "analogpattern_by_Peter_Nerlich",
    "greentock_by_Peter_Nerlich",
    "life_by_Aitzol_Berasategi",
    "picosdeeuropa_by_Aitzol_Berasategi",
    "seeding_by_Clements_Engelhardt",
    "sunset_by_Aitzol_Berasategi",
    "umang_by_Abhishek_Mudgal",
)
SOLID = 40  # alpha above which a pixel belongs to the thing
CUTOUT_SIDE = 256  # px of the longer side at most
TRAINING_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "LiberationMono-Bold",
    "LiberationSans-Bold",
    "LiberationSerif-Italic",
    "LiberationSerif-Regular",
)
HELD_OUT_FONTS = (
    "LiberationMono-Regular",
    "LiberationSans-BoldItalic",
    "LiberationSans-Regular",
    "LiberationSerif-Bold",
)


@dataclass(frozen=True)
class CutOut:
    """One thing with transparent surroundings, cropped to its own extent."""

    noun: Noun
    file: str
    image: Image.Image  # RGBA

    @cached_property
    def color(self) -> str | None:
        """The colour word for this thing; None if no single colour covers most of it."""
        return color_word(np.asarray(self.image))


@dataclass(frozen=True)
class Assets:
    cutouts: tuple[CutOut, ...]
    backgrounds: tuple[Image.Image, ...]
    fonts: tuple[Path, ...]

    @cached_property
    def by_noun(self) -> dict[str, list[CutOut]]:
        by_name: dict[str, list[CutOut]] = {}
        for cutout in self.cutouts:
            by_name.setdefault(cutout.noun.name, []).append(cutout)
        return by_name

    def choose(self, rng: random.Random, name: str) -> CutOut:
        """Return a cut-out of a noun. If it has photographs, half of the choices are photographs, although emoji are
        more numerous."""
        every = self.by_noun[name]
        stamps = [cutout for cutout in every if cutout.file.startswith("stamps/")]
        return rng.choice(stamps if stamps and rng.random() < 0.5 else every)


@cache
def load_assets(sources: Path, *, held_out_things: bool, held_out_backgrounds: bool) -> Assets:
    """Load the assets of training, or held-out ones. Fonts are held out together with things."""
    cutouts = []
    for noun in nouns():
        for file in noun.files:
            if (file in noun.held_out) == held_out_things and (sources / file).exists():
                cutouts.append(CutOut(noun, file, _cut_out(sources / file)))
    return Assets(
        tuple(cutouts),
        tuple(_background(file) for file in background_files(sources, held_out=held_out_backgrounds)),
        tuple(font_path(sources, name) for name in (HELD_OUT_FONTS if held_out_things else TRAINING_FONTS)),
    )


def background_files(sources: Path, *, held_out: bool) -> list[Path]:
    names = HELD_OUT_BACKGROUNDS if held_out else TRAINING_BACKGROUNDS
    files = [sources / "backgrounds" / f"{name}.jpg" for name in names]
    if not held_out:
        files += sorted((sources / "monuments").glob("*.webp")) + sorted((sources / "wallpapers").glob("*.jpg"))
    return files


def _cut_out(file: Path) -> Image.Image:
    image = Image.open(file).convert("RGBA")
    rows, columns = np.nonzero(np.asarray(image)[:, :, 3] > SOLID)
    image = image.crop((int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1))
    image.thumbnail((CUTOUT_SIDE, CUTOUT_SIDE), reducing_gap=3)
    return image


def _background(file: Path, longest: int = 1200) -> Image.Image:
    image = Image.open(file).convert("RGB")
    image.thumbnail((longest, longest))
    return image


def font_path(sources: Path, name: str) -> Path:
    """Liberation comes from Debian, DejaVu with matplotlib."""
    file = sources / "fonts" / f"{name}.ttf"
    if not file.exists():
        file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    ImageFont.truetype(str(file), 10)  # so that a broken font fails here, and not in the middle of training
    return file
