"""A patch changes settings of torch.compile, and restores them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]
#: In a separate process, because the first patch of a process does more than later ones.
PATCHES = """
import sys
sys.path.insert(0, sys.argv[1])
import torch._dynamo
from helpers.tiny import tiny_llava
import tokenprune

torch._dynamo.config.skip_nnmodule_hook_guards = True
def skips():
    return torch._dynamo.config.skip_nnmodule_hook_guards
for _ in range(2):
    first = tokenprune.patch(tiny_llava(), "grid")
    second = tokenprune.patch(tiny_llava(), "grid")
    print(skips())
    first.remove()
    print(skips())
    second.remove()
    print(skips())
"""


def test_the_last_patch_that_is_removed_restores_the_settings() -> None:
    run = subprocess.run([sys.executable, "-c", PATCHES, str(TESTS)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["False", "False", "True"] * 2
