"""Which tests of the many families that share one adapter `make test` runs: a part that changes every day.

`make matrix` runs all of them, with --all-cells. The part is in pytest's header; MATRIX_PART=3 runs that one again.
"""

from __future__ import annotations

import os
import zlib
from datetime import date
from typing import Any

from helpers.families import FAMILIES
from helpers.families.common import CommonFamily

#: Of how many parts one is run.
PARTS = 8
VARIABLE = "MATRIX_PART"
WIDE = {name for name, family in FAMILIES.items() if isinstance(family, CommonFamily)}
#: What every family runs every time, by the beginning of its ID.
ALWAYS = (
    "test_dropping_equals_masking[random-{}-greedy-padded]",
    "test_every_mode_gives_what_the_oracle_gives[{}-greedy",
)


def part() -> int:
    """The part of this day, or of the environment variable, which the processes of a parallel run share."""
    return int(os.environ.setdefault(VARIABLE, str(date.today().toordinal() % PARTS)))


def runs(item: Any) -> bool:
    """Whether a test is in the part."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    family = parameters.get("case", parameters.get("name"))
    if family not in WIDE or item.name.startswith(tuple(begin.format(family) for begin in ALWAYS)):
        return True
    return zlib.crc32(item.nodeid.encode()) % PARTS == part()
