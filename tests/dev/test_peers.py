"""The page on published packages names every strategy."""

import re
import sys

from tokenprune import strategies
from tokenprune.evals.models.bundled import BUNDLED


def test_every_strategy_of_a_paper_is_compared_or_the_page_says_why_not() -> None:
    """It has a row, or the text that describes its comparison has its name as code."""
    page = (BUNDLED.parent / "results" / "peers.md").read_text(encoding="utf-8").partition("\n## Speed\n")[0]
    shown = set(re.findall(r"\w+", " ".join(re.findall(r"^\| [^|]+|`\w+`", page, re.MULTILINE))))
    classes = [cls for cls in map(strategies.__dict__.get, strategies.__all__) if isinstance(cls, type)]
    of_papers = {cls.__name__ for cls in classes if "arxiv.org" in (sys.modules[cls.__module__].__doc__ or "")}
    assert len(of_papers) > 20
    assert of_papers <= shown, of_papers - shown
