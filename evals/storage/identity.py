"""Refuse to resume work that was started differently: with other settings, weights or questions."""

import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenprune.errors import SettingError
from tokenprune.evals.reading.fields import as_object
from tokenprune.evals.storage import files
from tokenprune.text_files import parse_json, read_text

#: How many differences an error lists; a run of many setups may have hundreds.
LISTED = 3
#: What a differing digest means, by the last part of its name. `{}` is the part before it, such as a task.
DIGESTS = {
    "weights": "other weights of the model",
    "config": "another config of the model",
    "processor": "other settings of its processor",
    "class": "other code of the strategy",
    "digest": "other {} questions, right answers, images or frames",
    "images": "{} questions about other images",
}
#: A digest, which tells a reader nothing.
_DIGEST = re.compile("[0-9a-f]{16,}")


def check_same(
    stored: Mapping[str, Any], now: Mapping[str, Any], holds: str, instead: str, words: Mapping[str, str] | None = None
) -> None:
    """Raise SettingError if the values that a file was started with differ from `now`.

    Values within objects are compared one by one: {"model": {"dtype": ...}} has the name `model.dtype`.

    holds, instead: the beginning and the end of the message, which lists the first few differences in between.
    words: what a differing digest means, by its name, if not in DIGESTS: "other sources". Digests themselves are not
        shown.
    """
    stored, now = _flat(stored), _flat(now)
    changed = [name for name in {**stored, **now} if stored.get(name) != now.get(name)]
    if changed:
        listed, more = changed[:LISTED], len(changed) - LISTED
        digests = [name for name in listed if _is_digest(stored.get(name)) or _is_digest(now.get(name))]
        shown = [name for name in listed if name not in digests]
        was, is_now = (", ".join(f"{name}={_short.repr(of.get(name))}" for name in shown) for of in (stored, now))
        differences = [f"with {was} and not {is_now}"] if shown else []
        differences += [f"with {(words or {}).get(name) or _in_words(name)}" for name in digests]
        others = f", and {more} more" if more > 0 else ""
        raise SettingError(f"{holds}, {', '.join(differences)}{others}. {instead}")


def record_identity(path: Path, identity: Mapping[str, Any], what: str) -> None:
    """Write the identity of work to a file. SettingError if it holds a different one; `what` is "another training"."""
    now = json.loads(json.dumps(identity))
    if path.is_file():
        instead = "Name another output, or delete its folder."
        stored = as_object(parse_json(read_text(path), str(path), f". {instead}"), str(path))
        check_same(stored, now, f"{path}: holds {what}", instead)
    else:
        files.replace(path, json.dumps(now, indent=1) + "\n")


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _in_words(name: str) -> str:
    """What a differing digest of this name means."""
    owner, _, last = name.rpartition(".")
    return DIGESTS[last].format(owner.rpartition(".")[2]) if last in DIGESTS else f"another {name}"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
