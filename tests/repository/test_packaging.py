"""Every way to install tokenprune gives the same three packages, and none ships data."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
import tomli
import torch

import tokenprune
from tokenprune.evals.cli import COMMANDS
from tokenprune.tokens import Layout, VisualTokens

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DATA = (
    "evals/bundled/model/model.safetensors",
    "evals/bundled/scenes/images/1.webp",
    "evals/bundled/scenes/refs(a).json",
)
IMPORTS = (
    "import tokenprune, tokenprune.adapters, tokenprune.evals, tokenprune.strategies;"
    "from tokenprune.evals import stats; print(tokenprune.evals.__name__, tokenprune.evals.__file__)"
)
EXTRAS = """
import json, re
from importlib.metadata import metadata
found = {extra: [] for extra in metadata("tokenprune-vlm").get_all("Provides-Extra")}
for line in metadata("tokenprune-vlm").get_all("Requires-Dist"):
    if match := re.search(r"extra == .(\\w+)", line):
        found[match[1]].append(re.match(r"[\\w-]+", line)[0])
print(json.dumps(found))
"""
PATCH = """
import tokenprune
from helpers.tiny import prompt, tiny_llava
model = tiny_llava()
with tokenprune.patch(model, tokenprune.FoPru(keep_ratio=0.25)) as handle:
    model(**prompt([1]))
    print(handle.report.images[0].n_kept)
"""


def call(*command: object, cwd: Path) -> str:
    """Run a command and return its output, or show the output if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the working tree that contains bundled data."""
    folder = tmp_path / "clone"
    ignored = ignore_patterns(".*", "build", "dist", "*.egg-info", "bundled", "__pycache__", "demo_output", "runs")
    copytree(ROOT, folder, symlinks=True, ignore=ignored)
    for name in DATA:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"data")
    return folder


@pytest.fixture
def clone_without_symlinks(clone: Path) -> Path:
    """A clone as git checks it out with core.symlinks=false: links are text files with their target."""
    for link in (clone / "tokenprune" / "adapters", clone / "tokenprune" / "evals"):
        target = link.readlink()
        link.unlink()
        link.write_text(str(target))
    return clone


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of a new environment that sees our dependencies, but not our own installation."""
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    interpreter = tmp_path / "env" / "bin" / "python"
    site = Path(call(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    dependencies = Path(pytest.__file__).parent.parent  # .pth files in a path that is added this way do not run
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    return interpreter


def install(python: Path, *what: object) -> None:
    arguments = "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"
    call(python, "-m", "pip", "install", *arguments, *what, cwd=Path("/"))


def test_package_list_is_complete() -> None:
    """The list in pyproject.toml is written by hand; a missing folder would not be shipped."""
    mapping = SETTINGS["tool"]["setuptools"]["package-dir"]
    folders = {
        ".".join([package, *path.parent.relative_to(ROOT / root).parts])
        for package, root in mapping.items()
        for path in (*(ROOT / root).rglob("__init__.py"), *(ROOT / root).rglob("templates/*"))
        if not any(parent.is_symlink() for parent in path.parents if parent != ROOT and ROOT in parent.parents)
        if ROOT / "evals" / "dev" not in path.parents  # for maintainers
    }
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == folders


def test_links_are_links() -> None:
    for name in ("adapters", "evals"):
        assert (ROOT / "tokenprune" / name).readlink() == Path("..") / name


def test_types_are_checked_behind_the_links() -> None:
    """pyright does not follow links that it finds, only those that it is given."""
    links = {f"tokenprune/{path.name}" for path in (ROOT / "tokenprune").iterdir() if path.is_symlink()}
    assert links <= set(SETTINGS["tool"]["pyright"]["include"])


@pytest.mark.parametrize("name", ["adapters", "evals"])
def test_the_short_name_is_refused(name: str) -> None:
    command = [sys.executable, "-c", f"import {name}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"ImportError: import tokenprune.{name}, not {name}" in result.stderr


def test_the_example_in_contributing_works() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    assert tokenprune.STRATEGIES.pop("norm") is names["Norm"]
    features = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 9.0], [0.0, 0.0]])
    selection = names["Norm"](keep_ratio=0.5).select(VisualTokens(features, Layout.raster((1, 2, 2))))
    assert selection.kept.tolist() == [0, 2]


def test_plain_clone(clone: Path, python: Path) -> None:
    assert str(clone) in call(python, "-c", IMPORTS, cwd=clone)


@pytest.mark.slow
def test_wheel_and_sdist(clone: Path, python: Path, tmp_path: Path) -> None:
    """The wheel is built from the sdist, so what works with one works with the other."""
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", clone, cwd=tmp_path)
    (wheel,), (sdist,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    wheel_names = zipfile.ZipFile(wheel).namelist()
    with tarfile.open(sdist) as archive:
        sdist_names = archive.getnames()
    for suffix in ("tokenprune/py.typed", "evals/tasks/sets.toml", "LICENSE", "NOTICE"):
        assert any(name.endswith(suffix) for name in wheel_names), suffix
        assert any(name.endswith(suffix) for name in sdist_names), suffix
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "evals").glob("*/templates/*")}
    assert pages
    assert {f"tokenprune/{name}" for name in pages} <= set(wheel_names)
    packaged = {name.split("/")[0] for name in wheel_names}
    assert {name for name in packaged if not name.endswith(".dist-info")} == {"tokenprune"}
    unwanted = re.compile(r"(^|/)(bundled|dev|demos|tests|results)/")
    assert not [name for name in wheel_names + sdist_names if unwanted.search(name)]
    install(python, wheel)
    assert str(tmp_path / "env") in call(python, "-c", IMPORTS, cwd=Path("/"))
    extras = json.loads(call(python, "-c", EXTRAS, cwd=Path("/")))
    assert set(extras) == {"adapt", "evals", "optimize", "retrieval", "vllm"}
    assert "optuna" in extras["optimize"]
    assert not {"optuna", "greenlet", "pytest", "onnx"} & {*extras["evals"], *extras["retrieval"]}
    command = python.parent / "tokenprune"
    assert call(command, "--version", cwd=Path("/")) == f"tokenprune {tokenprune.__version__}\n"
    for name in COMMANDS:
        assert f"usage: tokenprune {name} " in call(command, name, "--help", cwd=Path("/"))
    assert call(python, "-c", f"import sys; sys.path.append({str(ROOT / 'tests')!r})\n{PATCH}", cwd=Path("/")) == "9\n"


@pytest.mark.slow
def test_editable(clone: Path, python: Path) -> None:
    install(python, "--editable", clone)
    assert str(clone) in call(python, "-c", IMPORTS, cwd=Path("/"))


@pytest.mark.slow
def test_checkout_without_symlinks(clone_without_symlinks: Path, python: Path, tmp_path: Path) -> None:
    install(python, "--editable", clone_without_symlinks)
    assert str(clone_without_symlinks) in call(python, "-c", IMPORTS, cwd=Path("/"))
    call(
        *(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path / "dist"),
        clone_without_symlinks,
        cwd=tmp_path,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"tokenprune/adapters/__init__.py", "tokenprune/evals/__init__.py"} <= set(names)
