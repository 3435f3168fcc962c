"""Tiny models of families, as published, each in a file `stored/NAME.json`:

files    those of the checkpoint, except for weights
text     a file of these and the keys in it of the language model's settings, which tests may change
weights  by file and name: a shape, a mean, a standard deviation, and which rows equal the first one; or values; or the
         name of weights that are the same
answers  of families that transformers cannot load: what it answers with the same model in another format, by `key`
commit   the commit whose `tests/helpers/served/` has that model
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import partial
from math import prod
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from helpers.served.reference import Answer, Request

STORED = Path(__file__).with_name("stored")
#: A file in a checkpoint with stored answers that says which one it is.
NAMED = "stored.json"


def save(name: str, folder: Path, **settings: Any) -> None:
    """Save a checkpoint, with other settings of its language model."""
    found = read(name)
    file, *keys = found["text"]
    config = text = json.loads(found["files"][file])
    for key in keys:
        text = text[key]
    text |= settings
    for path in (*found["files"], *found["weights"]):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    for path, content in {**found["files"], file: json.dumps(config)}.items():
        (folder / path).write_text(content)
    for path, recipes in found["weights"].items():
        save_file(drawn(recipes, "answers" in found), folder / path, {"format": "pt"})
    if "answers" in found:
        (folder / NAMED).write_text(json.dumps([name, settings]))


def stored(name: str) -> partial[None]:
    return partial(save, name)


def read(name: str) -> dict[str, Any]:
    return json.loads((STORED / f"{name}.json").read_text())


def drawn(recipes: Mapping[str, Any], everywhere: bool) -> dict[str, Tensor]:
    """Return weights. everywhere: whether they are the same in every release of torch, as stored answers need."""
    generator, found = torch.Generator().manual_seed(0), {}
    for name, recipe in recipes.items():
        if isinstance(recipe, str):
            found[name] = found[recipe].clone()
        elif isinstance(recipe, dict):
            found[name] = torch.tensor(recipe["values"])
        else:
            shape, mean, std, *rows = recipe
            if std == "A_log":  # the decay of linear attention
                weights = torch.empty(shape).uniform_(1, 16, generator=generator).log_()
            elif not std:
                weights = torch.full(shape, mean)
            elif everywhere:
                weights = mean + std * 12**0.5 * hashed(name, shape)
            else:
                weights = torch.empty(shape).normal_(mean, std, generator=generator)
            weights[rows] = weights[:1].clone()
            found[name] = weights
    return found


def hashed(name: str, shape: Sequence[int]) -> Tensor:
    """Return numbers from -0.5 to 0.5: hashes of their places (SplitMix64)."""
    found = np.arange(prod(shape), dtype=np.uint64) + (np.uint64(crc32(name.encode())) << np.uint64(32))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
    return torch.from_numpy((found >> np.uint64(40)).astype(np.float32) / 2**24 - 0.5).view(*shape)


def key(settings: Mapping[str, Any], strategy: str, own: Mapping[str, Any], ids: str, request: Request) -> str:
    """Return the key of a checkpoint's answer. settings: of its language model. own: of the strategy."""
    told = json.dumps([settings, strategy, own, ids, astuple(request)], sort_keys=True)
    return hashlib.sha1(told.encode()).hexdigest()[:12]


def answers(folder: Path, strategy: str, own: Mapping[str, Any], ids: str, requests: Sequence[Request]) -> list[Answer]:
    """Return the stored answers of a checkpoint that was saved to a folder. Of the first token, they have the log
    probabilities of the likeliest only."""
    name, settings = json.loads((folder / NAMED).read_text())
    found, of_checkpoint = [], read(name)
    for request in requests:
        answer = of_checkpoint["answers"].get(key(settings, strategy, own, ids, request))
        if answer is None:
            raise LookupError(
                f"{STORED / name}.json has no answer to {strategy}, {own}, {ids}, {request}: set STORE_ANSWERS, as "
                f"helpers/served/store.py says, to what loads the model of commit {of_checkpoint['commit']}"
            )
        first = {int(token): logprob for token, logprob in answer["first"].items()}
        found.append(Answer(**{**answer, "first": first}))
    return found
