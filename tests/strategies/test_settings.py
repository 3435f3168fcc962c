"""Settings: their types, the papers' defaults, and files."""

import json
import re
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import tokenprune
from tokenprune import DART, Compose, FoPru, LateStep, SettingError, Strategy, VFlowOpt
from tokenprune.strategies import STRATEGIES, parse
from tokenprune.strategies.registry import settings_of
from tokenprune.strategies.settings import SettingsFile
from tokenprune.strategy import StagedStrategy

GOOD = {"strategy": "fopru", "settings": {"keep_ratio": 0.5, "mode": "row"}}


def written(folder: Path, content: Any = GOOD) -> str:
    path = folder / "settings.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_file_patches(llava: Any, tmp_path: Path) -> None:
    with tokenprune.patch(llava, written(tmp_path)) as handle:
        assert handle.strategy == FoPru(keep_ratio=0.5, mode="row")


def test_keywords_override_it(llava: Any, tmp_path: Path) -> None:
    with tokenprune.patch(llava, written(tmp_path), keep_ratio=0.25, position_ids="compact") as handle:
        assert handle.strategy == FoPru(keep_ratio=0.25, mode="row")
        assert handle.position_ids == "compact"


def test_a_budget_overrides_the_other_kind(llava: Any, tmp_path: Path) -> None:
    with tokenprune.patch(llava, written(tmp_path), keep=4) as handle:
        assert handle.strategy == FoPru(keep=4, mode="row")
    counted = written(tmp_path, {**GOOD, "settings": {"keep": 4}})
    with tokenprune.patch(llava, counted, keep_ratio=0.25) as handle:
        assert handle.strategy == FoPru(keep_ratio=0.25)
    with tokenprune.patch(llava, written(tmp_path), keep=None) as handle:
        assert handle.strategy == FoPru(keep_ratio=0.5, mode="row")
    assert parse("fopru:keep_ratio=0.5,mode=row", keep=4) == FoPru(keep=4, mode="row")
    with pytest.raises(SettingError, match=r"settings\.json: FoPru: keep_ratio=0.5 and keep=4 are both set"):
        tokenprune.patch(llava, written(tmp_path), keep_ratio=0.5, keep=4)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_goes_through_a_file(strategy: str, tmp_path: Path) -> None:
    made = STRATEGIES[strategy](keep_ratio=0.3)
    path = written(tmp_path, {"strategy": strategy, "settings": settings_of(made)})
    assert SettingsFile.read(path).make() == made


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"strategy": "fopru",\n "settings": }', r"line 2, column 14: broken JSON"),
        ("[]", r"expected an object, found \[\]"),
        (
            '{"strategy": "fopru", "settings": {"keep_ratio": 0.5, "keep_ratio": 0.25}}',
            r"settings\.json: broken JSON: the key 'keep_ratio' appears twice; keep one",
        ),
        ({"strategy": "fopru"}, 'no "settings"'),
        ({"settings": {}}, 'no "strategy"'),
        ({**GOOD, "setings": {}}, r"unknown key 'setings'. Did you mean 'settings'\?"),
        ({**GOOD, "strategy": "fopro"}, r'"strategy": unknown strategy \'fopro\'. Did you mean \'fopru\'\?'),
        ({**GOOD, "strategy": 3}, r'"strategy": unknown strategy 3'),
        ({**GOOD, "settings": [1]}, r'"settings": expected an object, found \[1\]'),
        ({**GOOD, "settings": {"keep_rato": 0.5}}, r"\"settings\" of fopru: unknown setting 'keep_rato'"),
        ({**GOOD, "settings": {"keep_ratio": "0.5"}}, r"\"settings\": keep_ratio='0.5' is not of type float"),
        ({**GOOD, "settings": {"keep_ratio": True}}, r"\"settings\": keep_ratio=True is not of type float"),
        ({**GOOD, "settings": {"mode": "column"}}, r"\"settings\": unknown mode 'column'. Known: rank, row"),
        ({**GOOD, "settings": {"keep_ratio": 7.0}}, r"FoPru: keep_ratio=7.0 is not a fraction"),
        ({**GOOD, "search": 1}, r'"search": expected an object, found 1'),
    ],
)
def test_what_is_wrong_is_named_with_its_file(llava: Any, tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said) as caught:
        tokenprune.patch(llava, written(tmp_path, content))
    assert str(tmp_path / "settings.json") in str(caught.value)


def test_a_missing_file_is_named(llava: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"none\.json: no such settings file\. `tokenprune tune` and `opt"):
        tokenprune.patch(llava, str(tmp_path / "none.json"))


def test_not_utf_8(llava: Any, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_bytes(b'{\n"strategy": "\xff"}')
    with pytest.raises(SettingError, match="line 2: not UTF-8"):
        tokenprune.patch(llava, str(tmp_path / "settings.json"))


def test_an_unknown_keyword(llava: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="fopru: unknown setting 'keep_rato'"):
        tokenprune.patch(llava, written(tmp_path), keep_rato=0.5)


def test_another_depth_warns(llava: Any, tmp_path: Path) -> None:
    n_layers = len(llava.model.language_model.layers)
    path = written(tmp_path, {**GOOD, "model": {"layers": 28}})
    with pytest.warns(UserWarning, match=f"found on a model of 28 decoder layers; this one has {n_layers}"):
        tokenprune.patch(llava, path).remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenprune.patch(llava, written(tmp_path, {**GOOD, "model": {"layers": n_layers}})).remove()


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("nuwa", {"gather": False, "reach": 3.0}, "Nuwa: reach=3.0 has no effect with gather=False. Leave one of them"),
        ("mosaic", {"merge": False, "reach": 3.0}, "Mosaic: reach=3.0 has no effect with merge=False"),
        ("mosaic", {"merge": False, "attention_bias": "size"}, "attention_bias='size' has no effect with merge=False"),
        ("sparsevlm", {"recycle": 0.0, "clusters": 0.5}, "SparseVLM: clusters=0.5 has no effect with recycle=0"),
        ("backgroundpruning", {"threshold": 0.9, "quantile": 0.5}, "quantile=0.5 has no effect beside threshold"),
        ("backgroundpruning", {"cluster": False, "threshold": 0.9}, "threshold=0.9 has no effect with cluster=False"),
        ("backgroundpruning", {"rank": "distinct", "layer": -2}, 'layer=-2 has no effect with rank="distinct"'),
    ],
)
def test_settings_that_would_do_nothing(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=re.escape(said)):
        STRATEGIES[name](**settings)


# Settings of a wrong type raise our own error when the strategy is made.


CLASSES = [*STRATEGIES.values(), LateStep]
#: Values that neither a flag nor a number may have. A flag may be True, an optional number None.
WRONG = ("yes", (0.5, 0.5), [1], {}, float("nan"))


def plain_settings(kind: str) -> list[tuple[Any, str, bool]]:
    """Return every setting of every strategy that is a flag ("bool") or a number ("float"), and whether it may be
    None."""
    return [
        (cls, field.name, "None" in str(field.type))
        for cls in CLASSES
        for field in fields(cls)
        if field.init and str(field.type).removesuffix(" | None") == kind
    ]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("cls", "name", "optional"), plain_settings("float"))
def test_a_number_is_nothing_else(cls: Any, name: str, optional: bool) -> None:
    for value in (*WRONG, True, *(() if optional or name == "keep_ratio" else (None,))):
        with pytest.raises(SettingError, match=f"{cls.__name__}: {name}="):
            cls(**{name: value})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("cls", "name", "optional"), plain_settings("int"))
def test_a_whole_number_is_nothing_else(cls: Any, name: str, optional: bool) -> None:
    for value in (*WRONG, True, 2.5, float("inf"), *(() if optional else (None,))):
        with pytest.raises(SettingError, match=f"{cls.__name__}: .*{name}|{cls.__name__}: keep is a count"):
            cls(**{name: value})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("cls", "name", "optional"), plain_settings("bool"))
def test_a_flag_is_true_or_false(cls: Any, name: str, optional: bool) -> None:
    for value in (*WRONG, 0, 1, None):
        with pytest.raises(SettingError, match=rf"{cls.__name__}: {name}=.*; write {name}=True or False\."):
            cls(**{name: value})


def test_there_are_some_of_each() -> None:
    assert (VFlowOpt, "cell", True) in plain_settings("float")
    assert (DART, "pivots", False) in plain_settings("int")
    assert (VFlowOpt, "recycle", False) in plain_settings("bool")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("steps", [5, "pixelprune+fopru", None])
def test_steps_are_a_list(steps: Any) -> None:
    with pytest.raises(
        SettingError, match=r"Compose: steps=.* is not a list; write steps=\[PixelPrune\(\), FoPru\(\)\]"
    ):
        Compose(steps=steps)


# By default, a strategy does what its record says that its paper or its authors' code does. Numbers that are not
# settings are tested with their strategy.


#: Settings with the same default in every strategy that has them.
SHARED = {"budget_per", "average", "skip", "keep_ratio"}
EVERY = {**STRATEGIES, "latestep": LateStep}


@pytest.mark.parametrize("cls", EVERY.values(), ids=EVERY)
def test_default_budgets_are_the_papers(cls: type[Strategy]) -> None:
    strategy = cls()
    assert strategy.keep_ratio == pytest.approx(cls.record.published.get("keep_ratio", 0.25))
    if isinstance(strategy, StagedStrategy):
        found = tuple([stage.layer for stage in strategy.stages(n_layers)] for n_layers in (28, 32, 36))
        assert found == (cls.record.stages or ([], [], []))


@pytest.mark.parametrize("cls", EVERY.values(), ids=EVERY)
def test_defaults_are_the_papers(cls: type[Strategy]) -> None:
    """Those that are None leave a value to the model or turn off part of a strategy."""
    own = {one.name: one.default for one in fields(cls) if one.init and one.name not in SHARED}
    strategy = cls()
    if "reuse" in own:
        own["reuse"] = strategy.recompute_every
    published = {name: value for name, value in cls.record.published.items() if name != "keep_ratio"}
    assert {name: value for name, value in own.items() if value is not None} == published
    assert cls.record.source or not published
