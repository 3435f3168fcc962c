"""`tokenprune models`: which classes of transformers can be pruned, and with what."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenprune.adapters.tested import Tested

EXTRA = "evals"
#: Contract -> what pruning equals.
CONTRACTS = {
    "masking": "masking the dropped tokens out of the unpruned model's attention",
    "masking except ties": "masking, unless the indexer of a sparse layer gives two tokens equal scores",
    "never seen": "a language model that gets only the kept tokens, at their original position IDs",
    "never seen, compact": 'as "never seen", at position IDs without gaps: patch(..., position_ids="compact")',
}
#: The name of a checkpoint on Hugging Face.
CHECKPOINT = re.compile(r"[\w-]+/[\w.-]+")
#: Names of published checkpoints that do not begin with their type, or begin with another.
PUBLISHED = {
    r"llava-v?1\.6": "llava_next",
    r"InternVL\d(?!.*-HF)": "internvl_chat",
    r"ERNIE-4\.5-VL": "ernie4_5_moe_vl",
}
#: What is said of a type that was guessed.
BY_NAME = "By its name, {} is of type {}. To be sure, look for model_type in its config.json."
#: First word of a test's name -> the mode, as the table in adapters/models.md calls it.
MODES = {
    "sampled": "sampling",
    "static": "static cache",
    "uncached": "no cache",
    "loop": "own decode loop",
    "embedded": "inputs_embeds",
}


@dataclass(frozen=True)
class Checkpoint:
    """The types of a model and of its vision tower, if its config says that, and the architectures that it names."""

    model_type: str
    tower: str | None
    architectures: tuple[str, ...]


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="class, model type or part of one (default: all)")


def run(options: Namespace) -> None:
    """List the supported model classes, with their strategies, inputs (images, videos) and vLLM support.

    With a name, prints everything about that class, or why it is refused.
    """
    from tokenprune.adapters.tested import read_tested
    from tokenprune.serving.vllm.checkpoints import CONVERTED, ONLY_VLLM

    families = read_tested()
    tested = list(families.values())
    if options.name is None:
        _print_all(tested)
        return
    folder = _read_folder(Path(options.name))
    named = options.name if folder is None else folder.model_type
    if (published := _published(named)) is not None:
        print(BY_NAME.format(named, published))
        named = published
    for model_type, like in ONLY_VLLM.items():
        if _matches(model_type, named):
            _print_only_vllm(model_type, next(one for one in tested if one.model_type == like))
            return
    wanted = CONVERTED.get(named, named)
    if wanted != named:
        print(f"{named} is a format that only vLLM reads. Everything but vLLM needs its conversion, of type {wanted}.")
    chosen = {key: one for key, one in families.items() if _matches(wanted, one.class_name, one.model_type)}
    if folder is not None:
        chosen = _with_tower(
            {key: one for key, one in chosen.items() if one.model_type == wanted} or chosen, folder.tower
        )
    refused = [text for text in _refusals() if _matches(wanted, text.split()[0])]
    if not chosen and not refused:
        names = {name for one in tested for name in (one.class_name, one.model_type)}
        # The name of a checkpoint, such as Qwen/Qwen3-VL-8B-Instruct, begins with its type.
        part_of_it = max(sorted(name for name in names if _matches(name, wanted)), key=len, default=None)
        part_of_it = part_of_it or _with_beginning(wanted, names)
        if part_of_it is not None and CHECKPOINT.fullmatch(wanted):
            print(BY_NAME.format(wanted, part_of_it))
            chosen = {key: one for key, one in families.items() if part_of_it in (one.class_name, one.model_type)}
        if not chosen:
            close = [part_of_it] if part_of_it else get_close_matches(wanted.lower(), sorted(names), 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise SystemExit(
                f"Error: no class or model type has {wanted!r} in its name.{hint} Look for model_type in the model's "
                f"config.json, or type: tokenprune models"
            )
    for family, one in chosen.items():
        served = named if wanted != named else one.model_type
        _print_one(family, one, served, folder.architectures if folder else ())
    if refused:
        print(*refused, sep="\n")


def strategies_of(one: Tested) -> list[str]:
    """The names of the strategies that a class can be pruned with, with their default settings."""
    from tokenprune.strategies import STRATEGIES
    from tokenprune.strategy import StagedStrategy

    found = []
    for name, kind in STRATEGIES.items():
        strategy = kind(keep_ratio=0.9)  # a schedule has its stages with any budget that its first layers do not use up
        inside = isinstance(strategy, StagedStrategy) and bool(strategy.stages(32))
        if strategy.required_statistics <= set(one.statistics) and (one.stages or not inside):
            found.append(name)
    return found


def in_vllm(model_type: str, architectures: Sequence[str] = ()) -> str | None:
    """Why checkpoints of a type, whose config names these architectures, cannot be pruned inside vLLM; None if they
    can."""
    from tokenprune.errors import UnsupportedError
    from tokenprune.serving.vllm.checkpoints import architecture_of, checkpoint_type

    try:
        architecture_of({"model_type": checkpoint_type(model_type), "architectures": architectures})
    except UnsupportedError as error:
        return str(error)
    return None


def served_of(strategies: Sequence[str], model_type: str) -> list[str]:
    """Those of some strategies that vLLM runs too, with their default settings, for a type of checkpoints that it
    can prune."""
    from tokenprune.errors import UnsupportedError
    from tokenprune.serving.vllm.checkpoints import architecture_of, checkpoint_type
    from tokenprune.serving.vllm.refusals import check_strategy
    from tokenprune.strategies import STRATEGIES

    found = []
    for name in strategies:
        try:
            check_strategy(STRATEGIES[name](), 32, architecture_of({"model_type": checkpoint_type(model_type)}))
        except UnsupportedError:
            continue
        found.append(name)
    return found


def _print_all(tested: list[Tested]) -> None:
    from rich.table import Table

    from tokenprune.evals.cli.output import console
    from tokenprune.strategies import STRATEGIES

    classes = {one.class_name: one for one in reversed(tested)}
    headings = "class", "model type", "contract", "strategies", "images, videos", "vLLM"
    lines = [f"{contract:<21} {meaning}" for contract, meaning in CONTRACTS.items()]
    equals = "Pruning equals, to 2e-5 in float32, on tiny models of every class:"
    table = Table(*headings, caption="\n".join([equals, *lines]), caption_justify="left")
    for name in sorted(classes):
        one = classes[name]
        n_strategies = f"{len(strategies_of(one))} of {len(STRATEGIES)}"
        vllm = "yes" if in_vllm(one.model_type) is None else "no"
        table.add_row(name, one.model_type, one.contract, n_strategies, ", ".join(one.modalities), vllm)
    screen = console(150)
    screen.print(table)
    refused = _refusals()
    screen.print(
        f"{len(classes)} classes. {len(refused)} are refused: tokenprune models NAME says why, and which strategies a "
        f"class can use. For any other transformers class, try patch(..., adapter=tokenprune.GenericAdapter)."
    )


def _print_one(family: str, one: Tested, served: str, architectures: Sequence[str]) -> None:
    """Print everything about a class. served: the type of the checkpoints that vLLM is to serve. architectures: those
    that a checkpoint's config names, if it is known."""
    can = strategies_of(one)
    n_passed = sum(outcome == "passed" for outcome in one.cells.values())
    refused = in_vllm(served, architectures)
    lacks = sorted(_mode(cell) for cell, outcome in one.cells.items() if outcome == "cannot")
    print(f"{one.class_name} ({one.model_type}), read by {one.adapter}")
    print(f"  contract    {one.contract}: pruning equals {CONTRACTS[one.contract]}")
    print(f"  tested      {n_passed} tests of {family}, largest difference {one.error:.0e}")
    print(f"  inputs      {', '.join(one.modalities)}")
    print(f"  strategies  {', '.join(can)}")
    runs = f"tokenprune serve, with {', '.join(served_of(can, served))}" if refused is None else None
    print(f"  vLLM        {runs or f'no: {refused}'}")
    if lacks:
        print(f"  not         {', '.join(lacks)}: transformers itself does not support it")


def _print_only_vllm(model_type: str, like: Tested) -> None:
    """Print what is known of a type that transformers has no class for. like: a class with such a vision tower."""
    print(f"{model_type} is read by vLLM only, not by transformers: no other command takes it.")
    print(f"  vLLM        tokenprune serve, with {', '.join(served_of(strategies_of(like), model_type))}")


def _refusals() -> list[str]:
    from tokenprune.adapters.refused import NEVER, NOT_YET, PARTS, refusal

    return [refusal([name]) for name in sorted([*NEVER, *NOT_YET, *PARTS])]


def _mode(cell: str) -> str:
    mode, _, batch = cell.partition(" ")
    return f"{MODES.get(mode, mode)} ({batch})" if batch else mode


def _read_folder(folder: Path) -> Checkpoint | None:
    """What the config of a folder with a model in it says; None for any other folder."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tower = (config.get("vision_config") or {}).get("model_type")
        return Checkpoint(str(config["model_type"]), tower, tuple(config.get("architectures") or ()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _with_tower(families: dict[str, Tested], tower: str | None) -> dict[str, Tested]:
    """Those tested with this tower, by their names (llava-dinov2), if any was."""
    if tower is None:
        return families
    named = {
        key: one for key, one in families.items() if any(_plain(tower).startswith(part) for part in key.split("-")[1:])
    }
    return named or families


def _published(checkpoint: str) -> str | None:
    """The type of a published checkpoint whose name says another, or none."""
    if not CHECKPOINT.fullmatch(checkpoint):
        return None
    name = checkpoint.rpartition("/")[2]
    return next((found for begin, found in PUBLISHED.items() if re.match(begin, name, re.IGNORECASE)), None)


def _with_beginning(checkpoint: str, names: Collection[str]) -> str | None:
    """The shortest name that contains the beginning of a checkpoint's, two words or more: Qwen2.5-Omni-7B is of type
    qwen2_5_omni_thinker."""
    words = checkpoint.rpartition("/")[2].split("-")
    beginnings = ("-".join(words[:n]) for n in range(len(words), 1, -1))
    fitting = ([name for name in sorted(names) if _matches(beginning, name)] for beginning in beginnings)
    return next((min(some, key=len) for some in fitting if some), None)


def _matches(wanted: str, *names: str) -> bool:
    """Whether `wanted` is in one of the names, whatever the case and punctuation: Qwen3-VL is in qwen3_vl."""
    return any(_plain(wanted) in _plain(name) for name in names)


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
