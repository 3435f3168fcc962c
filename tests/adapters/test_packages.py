"""Model adapters and vision towers that other installed distributions provide through entry points."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODEL = """
from transformers import LlavaForConditionalGeneration

class FakeForConditionalGeneration(LlavaForConditionalGeneration):
    pass

class FakeChild(FakeForConditionalGeneration):
    pass
"""
ADAPTER = """
from tokenprune.adapters.families.llava import LlavaAdapter

class FakeAdapter(LlavaAdapter):
    @property
    def description(self):
        return "a fake"
"""
TOWER = """
from tokenprune.adapters.towers import TOWERS

FAKE_TOWER = TOWERS["clip_vision_model"]
"""
ENTRY_POINTS = """[tokenprune.adapters]
FakeForConditionalGeneration = fake_family.adapter:FakeAdapter
Broken = fake_family.missing:Adapter
Odd = fake_family.model:FakeChild
LlavaForConditionalGeneration = fake_family.missing:Hijacked
[tokenprune.towers]
fake_tower = fake_family.tower:FAKE_TOWER
clip_vision_model = fake_family.tower:FAKE_TOWER
odd_tower = fake_family.model:FakeChild
"""
START = """
import sys
sys.path[:0] = [{tests!r}, {packages!r}, {root!r}]
import torch
from helpers.families import FAMILIES
from fake_family.model import FakeForConditionalGeneration, FakeChild
import tokenprune
from tokenprune.adapters import ADAPTERS, adapter_for

family = FAMILIES["llava-clip"]
"""
BODIES = {
    "ours are used, with a warning": """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        assert type(adapter_for(model)).__name__ == "LlavaAdapter"
        assert adapter_for(model).tower
said = [str(warning.message) for warning in caught if "fake-family provides" in str(warning.message)]
assert len(said) == 2, said
assert "adapter for LlavaForConditionalGeneration too, fake_family.missing:Hijacked, which is not used" in said[0], said
assert "import Hijacked from fake_family.missing and pass adapter=Hijacked" in said[0], said
assert "a vision tower for clip_vision_model too, fake_family.tower:FAKE_TOWER" in said[1], said
assert "fake_family.tower" not in sys.modules
""",
    "a fake family is pruned": """
assert "fake_family.adapter" not in sys.modules
model.__class__ = FakeForConditionalGeneration
with torch.no_grad(), tokenprune.patch(model, "grid", keep=4) as handle:
    model(**family.prompt([1]))
assert handle.report.n_kept == 4
assert adapter_for(model).description == "a fake"  # and not that of the class which it inherits from
assert ADAPTERS["FakeForConditionalGeneration"].__module__ == "fake_family.adapter"
""",
    "a class that inherits from it too": """
model.__class__ = FakeChild
assert adapter_for(model).description == "a fake"
""",
    "the list of adapters names it": """
try:
    tokenprune.patch(torch.nn.Linear(1, 1), "grid")
except tokenprune.UnsupportedError as error:
    assert "FakeForConditionalGeneration, " in str(error)
""",
    "a package that cannot be imported": """
model.__class__ = type("Broken", (FakeForConditionalGeneration,), {})
try:
    tokenprune.patch(model, "grid")
    raise SystemExit("patched")
except tokenprune.UnsupportedError as error:
    assert "fake-family provides the model adapter for Broken" in str(error), error
    assert "No module named 'fake_family.missing'" in str(error), error
    assert "Update or uninstall fake-family." in str(error), error
""",
    "a package brings a vision tower": """
model.model.vision_tower.config.model_type = "fake_tower"
with torch.no_grad(), tokenprune.patch(model, tokenprune.FoPru(keep=4)) as handle:
    model(**family.prompt([1]))
assert handle.report.n_kept == 4
assert "fake_family.tower" in sys.modules
""",
    "a package names something that is not a tower": """
model.model.vision_tower.config.model_type = "odd_tower"
try:
    tokenprune.patch(model, "grid")
    raise SystemExit("patched")
except tokenprune.UnsupportedError as error:
    assert "that is not a tokenprune.adapters.Tower" in str(error), error
""",
    "a package that names something else": """
model.__class__ = type("Odd", (FakeForConditionalGeneration,), {})
try:
    tokenprune.patch(model, "grid")
    raise SystemExit("patched")
except tokenprune.UnsupportedError as error:
    assert "that is not a subclass of tokenprune.adapters.ModelAdapter" in str(error), error
""",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like one that pip has installed into."""
    folder = tmp_path_factory.mktemp("site-packages")
    for name, text in {
        "fake_family/__init__.py": "",
        "fake_family/model.py": MODEL,
        "fake_family/adapter.py": ADAPTER,
        "fake_family/tower.py": TOWER,
        "fake_family-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: fake-family\nVersion: 1.0\n",
        "fake_family-1.0.dist-info/entry_points.txt": ENTRY_POINTS,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_package_brings_a_family(packages: Path) -> None:
    """All checks share one process, since each would load transformers, but every check makes its own model."""
    start = START.format(tests=str(ROOT / "tests"), packages=str(packages), root=str(ROOT))
    bodies = [f"print({name!r})\nmodel = family.build()\n{body}" for name, body in BODIES.items()]
    run = subprocess.run([sys.executable, "-c", start + "\n".join(bodies)], capture_output=True, text=True, check=False)
    done = run.stdout.splitlines()
    assert run.returncode == 0, f"{done[-1:]}\n{run.stderr}"
    assert done == list(BODIES)
