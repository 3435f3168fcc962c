"""Names of strategies: registered ones, classes in modules, installed packages, and in commands."""

import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from inspect import unwrap
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import tokenprune
from tokenprune import FoPru, SettingError, UnsupportedError, entry_points
from tokenprune.strategies import STRATEGIES, make, parse, register_strategy, registry
from tokenprune.strategies.parsing import StrategySpec

#: A user's module: a strategy with a setting, and several broken ones.
MODULE = '''
from dataclasses import dataclass

from tokenprune import ScoreStrategy


@dataclass(frozen=True)
class Norm(ScoreStrategy):
    """Keeps the visual tokens of the largest p-norm."""

    p: int = 2
    weights: tuple = ()

    def score(self, tokens):
        return tokens.features.float().norm(self.p, dim=-1)


class Undecorated(ScoreStrategy):
    p: int = 2

    def score(self, tokens):
        return tokens.features.norm(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Demanding(Norm):
    path: str


@dataclass(frozen=True)
class Unfinished(ScoreStrategy):
    pass


class Other:
    pass
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's package on disk. What the test registers and imports is undone afterwards."""
    folder = tmp_path / "user_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "norms.py").write_text(MODULE)
    (folder / "broken.py").write_text("import no_such_library\n")
    (folder / "thawed.py").write_text(f"{MODULE}\n\n@dataclass\nclass Thawed(Norm):\n    q: int = 1\n")
    (folder / "unclosed.py").write_text("import math\nnorm = (1\n")
    (tmp_path / "single_norms.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(STRATEGIES)
    yield folder
    STRATEGIES.clear()
    STRATEGIES.update(before)
    for name in [name for name in sys.modules if name.split(".")[0] in ("user_package", "single_norms")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("fopru", FoPru()),
        ("fopru:", FoPru()),
        ("fopru:layer=-2,mode=row", FoPru(mode="row", layer=-2)),
        ("fopru:keep=64", FoPru(keep=64)),
        ("fopru:layer=None,keep_ratio=1.0", FoPru(keep_ratio=1.0)),
        ("fopru:layer=-2.0", FoPru(layer=-2)),
        ("par:skip=(7,9),layer=3", tokenprune.PAR(skip=(7, 9), layer=3)),
        ("par:layer=3,skip=[7,9]", tokenprune.PAR(skip=(7, 9), layer=3)),
        ("tokenprune.strategies.pre_llm.fopru:FoPru,mode=row", FoPru(mode="row")),
        (" fopru ", FoPru()),
        ("fopru : layer = -2, mode = row", FoPru(mode="row", layer=-2)),
        ("pixelprune + fopru: layer=-2", tokenprune.Compose(tokenprune.PixelPrune(), FoPru(layer=-2))),
    ],
)
def test_a_text_is_read_as_a_strategy(text: str, same: tokenprune.Strategy) -> None:
    assert parse(text) == same


def test_keywords_go_before_the_text() -> None:
    assert parse("fopru:layer=-2,mode=row", keep_ratio=0.5, mode="rank") == FoPru(keep_ratio=0.5, layer=-2)


@pytest.mark.parametrize("module", ["user_package.norms", "single_norms"])
def test_a_class_of_a_module(module: str) -> None:
    plain, other = parse(f"{module}:Norm"), parse(f"{module}:Norm,p=1,weights=(1,2)", keep=3)
    assert repr(plain) == "Norm(keep_ratio=0.25)"
    assert repr(other) == "Norm(keep=3, p=1, weights=(1, 2))"
    assert make(f"{module}:Norm", p=1, keep=3, weights=(1, 2)) == other


def test_a_class_patches_from_a_name_and_from_a_file(llava: Any, tmp_path: Path) -> None:
    with tokenprune.patch(llava, "user_package.norms:Norm,p=1", keep_ratio=0.5) as handle:
        assert handle.strategy == make("user_package.norms:Norm", p=1, keep_ratio=0.5)
    file = tmp_path / "settings.json"
    file.write_text('{"strategy": "user_package.norms:Norm", "settings": {"p": 1}}')
    with tokenprune.patch(llava, str(file), keep_ratio=0.5) as handle:
        assert handle.strategy == make("user_package.norms:Norm", p=1, keep_ratio=0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fopro", "unknown strategy 'fopro'. Did you mean 'fopru'"),
        ("fopro:mode=row", "unknown strategy 'fopro'. Did you mean 'fopru'"),
        ("fopru:mod=row", "strategy 'fopru:mod=row': unknown setting 'mod'. Did you mean 'mode'"),
        ("fopru:row", "'row' is not a setting. Write settings as name:key=value"),
        ("fopru:mode=rank,row", "'row' is not a setting"),
        ("fopru:mode=rows", "unknown mode 'rows'. Did you mean 'row'"),
        ("fopru:layer=two", "layer='two' is not of type int | None"),
        ("visionzip:contextual=few", "contextual='few' is not of type float"),
        ("fopru:keep_ratio=2.5", "keep_ratio=2.5 is not a fraction"),
        ("fopru:keep_ratio=0.5,keep_ratio=0.1", "keep_ratio is set twice. Leave one of them out"),
        ("user_package.norms", "unknown strategy 'user_package.norms'"),
        ("fopru,layer=-2", r"'fopru,layer=-2'. Write settings after a colon: fopru:key=value,key=value\.$"),
        ("fopru keep_ratio=0.5", r"Write settings after a colon: fopru:key=value,key=value\.$"),
        (
            "fopru,grid",
            r"fopru:key=value,key=value; several in sequence as fopru\+grid, or to compare them fopru grid\.$",
        ),
        ("pixelprune+", r"strategy 'pixelprune\+': a strategy is missing beside \+. Write pixelprune\+fopru"),
        ("user_package.norms.Norm", r"unknown strategy .* A class of your own is written my_module:MyStrategy\.$"),
        ("user_package/norms.py:Norm", r"user_package/norms.py is a file. Write its module: user_package.norms:Norm$"),
        ("norms.py:Norm", "norms.py is a file. Write its module: norms:Norm$"),
        ("user_package.norms:", "user_package.norms is a module. Write user_package.norms:Class"),
        ("user_package.norms:p=1", "user_package.norms is a module. Write user_package.norms:Class,key=value"),
        ("user_package.norms:Norm,q=1", "unknown setting 'q'"),
        ("user_package.norms:Norm,p=one", "p='one' is not of type int"),
        ("user_package.norms:Norm,one", "'one' is not a setting. Write settings as user_package.norms:Norm,key=value"),
        ("user_package.norms:Nrm", r"class of user_package.norms 'Nrm'. Did you mean 'Norm'\? Known: D[^S]*$"),
        ("user_package.norms:Other", "Other is not a subclass of tokenprune.Strategy"),
        ("user_package.norms:dataclass", "dataclass is not a subclass of tokenprune.Strategy"),
        ("user_package.norms:Unfinished", "Unfinished is a base class. Use a class that defines score"),
        ("user_package.norms:Demanding", "no path. Add path="),
        ("user_package.norms:Undecorated,p=1", r"unknown setting 'p'.*Decorate Undecorated with @dataclass\(frozen"),
        ("user_package.nroms:Norm", r"user_package.nroms cannot be imported \(ModuleNotFoundError"),
        ("user_package.broken:Norm", r"cannot be imported \(ModuleNotFoundError: No module named 'no_such_library'"),
        (
            "user_package.thawed:Thawed",
            r"\(TypeError: cannot inherit non-frozen.*\)\. Correct .*thawed\.py, line 39\.$",
        ),
        ("user_package.unclosed:Norm", r"\(SyntaxError: .*\)\. Correct .*unclosed\.py, line 2\.$"),
        (":Norm", r"cannot be imported \(ValueError: .*\)\. Install"),
        ("no_such_module:Norm", "no_such_module cannot be imported.*PYTHONPATH"),
    ],
)
def test_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(SettingError, match=f"(?s){said}"):
        parse(text)


def test_the_annotations_of_a_class_need_not_resolve(tmp_path: Path) -> None:
    """For example if they name types that only type checkers import."""
    lines = MODULE.replace("p: int", "p: OnlyForTypeCheckers")
    (tmp_path / "user_package" / "typed.py").write_text("from __future__ import annotations\n" + lines)
    assert "p=1" in repr(parse("user_package.typed:Norm,p=1"))


def test_a_registered_class_is_found_by_name(llava: Any) -> None:
    cls = StrategySpec.read("user_package.norms:Norm").strategy_class
    assert register_strategy("norm")(cls) is cls
    assert tokenprune.STRATEGIES["norm"] is cls
    assert parse("norm:p=1") == cls(p=1)  # type: ignore[call-arg]
    with tokenprune.patch(llava, "norm", keep_ratio=0.5, p=1) as handle:
        assert isinstance(handle.strategy, cls)
    register_strategy("norm")(cls)  # as if a notebook cell runs again


def test_names_that_cannot_be_registered() -> None:
    with pytest.raises(
        SettingError, match=r"'fopru' belongs to tokenprune.strategies.pre_llm.fopru:FoPru.*another name"
    ):
        register_strategy("fopru")(tokenprune.Grid)
    for name in ("", "a.b", "a:b", "settings.json", "a,b", "a=b"):
        with pytest.raises(SettingError, match="cannot name a strategy"):
            register_strategy(name)
    with pytest.raises(SettingError, match=r"Grid'> cannot name a strategy.*: @register_strategy\('norm'\)"):
        unwrap(register_strategy)(tokenprune.Grid)  # without parentheses; the tests' type checks would refuse it first


DISTRIBUTION = {
    "their_strategies-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: their-strategies\nVersion: 1.0\n",
    "their_strategies-1.0.dist-info/entry_points.txt": dedent("""\
        [tokenprune.strategies]
        theirnorm = user_package.norms:Norm
        theirbroken = user_package.broken:Norm
        theirother = user_package.norms:Other
        fopru = user_package.broken:Norm
        """),
}


@pytest.fixture
def installed(tmp_path: Path) -> None:
    for name, content in DISTRIBUTION.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)


@pytest.mark.usefixtures("installed")
def test_an_installed_package(llava: Any) -> None:
    with tokenprune.patch(llava, "theirnorm:p=1", keep_ratio=0.5) as handle:
        assert handle.strategy == make("user_package.norms:Norm", p=1, keep_ratio=0.5)
    assert "theirnorm" in STRATEGIES
    with pytest.raises(SettingError, match="Did you mean 'theirnorm'"):
        parse("theirnrm")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("theirbroken", "their-strategies provides the strategy 'theirbroken'.*No module named 'no_such_library'"),
        (
            "theirother",
            "their-strategies names .*Other as the strategy .* not a subclass.*Update or uninstall their-strategies",
        ),
    ],
)
def test_a_broken_package(name: str, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        parse(name)


@pytest.mark.usefixtures("installed")
def test_a_package_with_a_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is used, and on first use a warning says so, and how to name theirs."""
    monkeypatch.setattr(entry_points, "COMPARED", set())
    said = r"their-strategies provides a strategy 'fopru' too, user_package.broken:Norm.*theirs, write 'user_package.br"
    with pytest.warns(UserWarning, match=said):
        assert isinstance(parse("fopru"), FoPru)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(parse("fopru"), FoPru)


@pytest.mark.usefixtures("installed")
def test_two_packages_with_one_name(tmp_path: Path) -> None:
    (tmp_path / "others-1.0.dist-info").mkdir()
    (tmp_path / "others-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    lines = "[tokenprune.strategies]\ntheirother = others:Norm\n"
    (tmp_path / "others-1.0.dist-info" / "entry_points.txt").write_text(lines)
    with pytest.raises(
        UnsupportedError, match=r"(?=.*others \(others:Norm\))several packages .* 'theirother': .*Uninstall"
    ):
        parse("theirother")


@pytest.mark.usefixtures("installed")
def test_packages_are_searched_only_for_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []

    def found(group: str) -> dict[str, EntryPoint]:
        searched.append(group)
        return {}

    monkeypatch.setattr(registry, "entry_points_of", found)
    monkeypatch.setattr(entry_points, "COMPARED", {(registry.GROUP, "fopru")})  # a name of ours is compared once
    assert isinstance(parse("fopru"), FoPru)
    assert not searched
    with pytest.raises(SettingError):
        parse("theirnorm")
    assert searched == ["tokenprune.strategies"]
