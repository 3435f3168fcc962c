"""Stores families in `stored/`.

    python -m helpers.served.store NAME FOLDER [FILE KEY...]

stores a checkpoint, whose language model's settings are in config.json or at these keys of a file.

For a family that transformers cannot load, add `"answers": {}` and `"commit"`, one with the same model in a format that
it can. Tests with STORE_ANSWERS=MODULE:FUNCTION store its answers: the function gets a folder with the checkpoint and
returns the model and a processor.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from helpers.served import reference, stored
from tokenprune.sequence.position_ids import PositionIds


def store(name: str, folder: Path, text: Sequence[str]) -> None:
    """Store a checkpoint. Its weights are replaced by others with the same means and standard deviations."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    weights = {str(one.relative_to(folder)): load_file(one) for one in paths if one.suffix == ".safetensors"}
    files = {str(one.relative_to(folder)): one.read_text() for one in paths if one.suffix != ".safetensors"}
    recipes = {file: {one: recipe(weight) for one, weight in of_file.items()} for file, of_file in weights.items()}
    write(name, {"files": files, "text": [*text] or ["config.json"], "weights": recipes})


def recipe(weight: Tensor) -> Any:
    if weight.numel() <= 64 and weight.unique().numel() > 1:
        return {"values": weight.tolist()}
    std, mean = (float(f"{number:.3g}") for number in (weight.std(correction=0), weight.mean()))
    return [[*weight.shape], 0.0 if abs(mean) < std else mean, std]


def record(
    loader: str,
    folder: Path,
    strategy: str,
    own: dict[str, Any],
    ids: PositionIds,
    requests: Sequence[reference.Request],
) -> None:
    """Store answers. loader: a function that loads another model, as above. The others: as in `reference.answers`."""
    module, _, function = loader.partition(":")
    reference.loaded_model = getattr(import_module(module), function)
    name, settings = json.loads((folder / stored.NAMED).read_text())
    found, answers = stored.read(name), reference.answers(folder, strategy, own, ids, requests)
    for request, answer in zip(requests, answers, strict=True):
        likeliest = sorted(answer.first, key=lambda token: -answer.first[token])[:24]
        found["answers"][stored.key(settings, strategy, own, ids, request)] = {
            "tokens": answer.tokens,
            "logprobs": [round(one, 5) for one in answer.logprobs],
            "first": {token: round(answer.first[token], 5) for token in likeliest},
            "kept": answer.kept,
            "n_prompt": answer.n_prompt,
        }
    write(name, found)


def write(name: str, found: Mapping[str, Any]) -> None:
    """Write a line per file, weight and answer."""

    def lines(part: Mapping[str, Any]) -> str:
        return "{\n" + ",\n".join(f"{json.dumps(one)}: {json.dumps(content)}" for one, content in part.items()) + "\n}"

    parts = {part: json.dumps(content) for part, content in found.items()}
    parts |= {part: lines(found[part]) for part in ("files", "answers") if part in found}
    weights = (f"{json.dumps(file)}: {lines(recipes)}" for file, recipes in found["weights"].items())
    parts["weights"] = "{\n" + ",\n".join(weights) + "\n}"
    whole = ",\n".join(f"{json.dumps(part)}: {content}" for part, content in parts.items())
    (stored.STORED / f"{name}.json").write_text(f"{{\n{whole}\n}}\n")


if __name__ == "__main__":
    store(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
