"""The check of vLLM's names finds every difference in another release, and none in the same one."""

from pathlib import Path
from zipfile import ZipFile

import pytest

from tokenprune.evals.dev.vllm_names.__main__ import files_for
from tokenprune.evals.dev.vllm_names.sources import Sources
from tokenprune.evals.dev.vllm_names.uses import File

RELEASE = {
    "vllm/__init__.py": 'LAZY = {"LLM": ".llm:LLM"}',
    "vllm/llm.py": "from .base import *\nclass LLM(Base):\n    def run(self, prompt, *, n=1): ...\n",
    "vllm/base.py": "class Base:\n    def __init__(self, size): self.width = size\n    def count(self, image): ...\n",
    "vllm/config/__init__.py": "",
    "vllm/config/model.py": (
        "class ModelConfig:\n    max_len: int\n    def read(self, other):\n        width = other.size = 1\n"
    ),
}
OURS = """
from vllm import LLM, llm
from vllm.base import Base

class Pruned(Base):
    def count(self, image):
        return super().count(image)

class Engine(llm.LLM):
    def run(self, prompt, *, n=1):
        return self.count(prompt)

def start(vllm_config):
    return Base(size=vllm_config.model_config.max_len)

def read(engine):
    return engine.width + engine.size
"""


def found(tmp_path: Path, changed: dict[str, str]) -> list[str]:
    (tmp_path / "ours.py").write_text(OURS)
    for path, text in RELEASE.items():
        file = tmp_path / "known" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with ZipFile(tmp_path / "release.whl", "w") as wheel:
        for path, text in {**RELEASE, **changed}.items():
            wheel.writestr(path, text)
    known, release = Sources.of_folder(tmp_path / "known"), Sources.of_wheel(tmp_path / "release.whl")
    return File(tmp_path / "ours.py").missing(known, release)


def test_the_same_release_has_everything(tmp_path: Path) -> None:
    assert found(tmp_path, {}) == []


def test_models_that_a_release_is_known_to_lack_are_not_checked() -> None:
    names = [{file.path.name for file in files_for(release)} for release in ("0.33.1-cp38.whl", "0.34.0-cp38.whl")]
    assert names[0] - names[1] == {"keye.py", "minimax_m3.py"}


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        ("vllm/__init__.py", "LLM", "Engine", "line 2: vllm has no LLM"),
        ("vllm/llm.py", "class LLM", "class Engine", "line 9: vllm.llm has no LLM"),
        ("vllm/base.py", "def count", "def number", "line 6: Pruned.count no longer overrides anything"),
        ("vllm/base.py", "def count", "def number", "line 11: the bases of Engine have no method count"),
        ("vllm/base.py", "count(self, image", "count(self, image, size", "line 6: Pruned.count: vLLM's has size too"),
        ("vllm/base.py", "count(self, image", "count(self, item", "line 6: Pruned.count: vLLM's has item too"),
        ("vllm/llm.py", "prompt, *", "*", "line 10: Engine.run: vLLM's has no prompt"),
        ("vllm/base.py", "(self, size)", "(self, length)", "line 14: Base has no parameter size"),
        ("vllm/config/model.py", "max_len", "longest", "line 14: vllm.config.model has no member max_len any more"),
        ("vllm/llm.py", "from .base import *", "class Base: ...", "line 11: the bases of Engine have no method count"),
    ],
)
def test_what_a_release_lacks(path: str, old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in RELEASE[path]
    assert f"ours.py, {said}" in found(tmp_path, {path: RELEASE[path].replace(old, new)})
