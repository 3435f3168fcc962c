"""Work that was started differently is not resumed."""

from pathlib import Path

import pytest

from tokenprune.errors import DataError, SettingError
from tokenprune.evals.storage.identity import check_same, record_identity


def test_differences_are_named() -> None:
    check_same({"seed": 0}, {"seed": 0}, "x.json: holds another run", "Name another --output.")
    with pytest.raises(SettingError, match=r"x: holds another run, with seed=0 and not seed=1\. Name another"):
        check_same({"seed": 0}, {"seed": 1}, "x: holds another run", "Name another --output.")
    many = dict.fromkeys("abcde", 0), dict.fromkeys("abcde", 1)
    with pytest.raises(SettingError, match=r"^x, with a=0, b=0, c=0 and not a=1, b=1, c=1, and 2 more\. Name another"):
        check_same(*many, "x", "Name another --output.")


def test_a_folder_holds_one_thing(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    record_identity(path, {"seed": 0, "ratios": (0.5, 0.25)}, "another training")
    record_identity(path, {"seed": 0, "ratios": (0.5, 0.25)}, "another training")
    with pytest.raises(SettingError, match=r"holds another training, with seed=0 and not seed=1\. Name another output"):
        record_identity(path, {"seed": 1, "ratios": (0.5, 0.25)}, "another training")
    for cut_off in (path.read_text()[:9], "[]"):
        path.write_text(cut_off)
        with pytest.raises(
            DataError, match=r"identity\.json.*(broken JSON: .* Name another output|expected an object)"
        ):
            record_identity(path, {"seed": 0}, "another training")


def test_differences_within_objects_are_named() -> None:
    """Two whole objects, cut to their first values, may look the same."""
    model = dict.fromkeys(("class", "device", "dtype", "layers", "name"), "a")
    with pytest.raises(SettingError, match=r"^x, with model\.name='a' and not model\.name='b'\. Name another"):
        check_same({"model": model}, {"model": model | {"name": "b"}}, "x", "Name another --output.")
    one, other = (
        {"model": {**model, "weights": 16 * digit}, "data": {"own": {"digest": 16 * digit}}} for digit in "ab"
    )
    described = "with other weights of the model, with other own questions, right answers, images or frames"
    with pytest.raises(SettingError, match=rf"^x, {described}\. Name another"):
        check_same(one, other, "x", "Name another --output.")


def test_digests_are_described_in_words() -> None:
    one, other = ({"weights": 16 * digit, "sources": 64 * digit, "seed": seed} for digit, seed in (("a", 0), ("b", 1)))
    with pytest.raises(SettingError, match=r"^x, with seed=0 and not seed=1, with other weights, with another sources"):
        check_same(one, other, "x", "Name another --output.", {"weights": "other weights"})
    with pytest.raises(SettingError, match=r"^x, with other weights\. Name another"):
        check_same(one, one | {"weights": 16 * "b"}, "x", "Name another --output.", {"weights": "other weights"})
