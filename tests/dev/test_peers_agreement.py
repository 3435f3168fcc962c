"""The comparison of our VisionZip and FlowCut with the published packages."""

import re
import sys

import torch
from helpers.by_path import module_at

from tokenprune import strategies
from tokenprune.evals.models.bundled import BUNDLED

agreement = module_at(BUNDLED.parent / "dev" / "peers" / "agreement.py")


def test_by_how_much_a_merge_is_decided() -> None:
    """The first token is nearer to one contextual token by 1 - 0.8, and the last is equally near to both."""
    keys = torch.tensor([[2.0, 0.0], [0.8, 0.6], [1.0, 0.0], [3.0, 1.0]])
    found = agreement.gaps(keys, torch.tensor([0, 1]), torch.tensor([2, 3]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.2]), atol=1e-6, rtol=0)


def test_every_strategy_of_a_paper_is_compared_or_the_page_says_why_not() -> None:
    """It has a row, or the text that describes its comparison has its name as code."""
    page = (BUNDLED.parent / "results" / "peers.md").read_text(encoding="utf-8").partition("\n## Speed\n")[0]
    shown = set(re.findall(r"\w+", " ".join(re.findall(r"^\| [^|]+|`\w+`", page, re.MULTILINE))))
    classes = [one for one in map(strategies.__dict__.get, strategies.__all__) if isinstance(one, type)]
    of_papers = {one.__name__ for one in classes if "arxiv.org" in (sys.modules[one.__module__].__doc__ or "")}
    assert len(of_papers) > 20
    assert of_papers <= shown, of_papers - shown
