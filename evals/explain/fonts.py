"""Fonts for figures with texts in any script."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import rc_context, rcParams
from matplotlib.font_manager import get_font_names

#: Widespread fonts with Chinese, Japanese or Korean characters, which matplotlib's own font lacks.
OTHERS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "Arial Unicode MS",
)
#: How matplotlib's warnings of characters that it cannot draw begin.
MISSING = re.compile(r"Glyph (\d+) ")


@contextmanager
def any_script() -> Iterator[set[str]]:
    """Draw what matplotlib's own font lacks with installed fonts. Afterwards, the set that was yielded holds the
    characters that no font has, which are drawn as boxes; matplotlib's warning of each is left out."""
    lacking: set[str] = set()
    installed = set(get_font_names())
    families = [*rcParams["font.family"], *(name for name in OTHERS if name in installed)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with rc_context({"font.family": families}):
            yield lacking
    for warning in caught:
        if missing := MISSING.match(str(warning.message)):
            lacking.add(chr(int(missing[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
