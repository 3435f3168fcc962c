"""`tokenprune models`: which transformers classes can be pruned, and by which strategies."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from tokenprune.evals.arguments.parser import not_empty
from tokenprune.evals.defaults import SERVED_STRATEGIES
from tokenprune.evals.models.checkpoint import Checkpoint, in_vllm, read_folder, served, served_by
from tokenprune.evals.models.guesses import guess, part_of, plain

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
#: Printed when a checkpoint's type was guessed from its name.
BY_NAME = "Judging by its name, {} has the type {}. To be sure, look for model_type in its config.json."
#: Printed when a config names an architecture other than the class that transformers loads for its type.
OTHER_NAMES = (
    "config.json names {}. If the names of its weights differ from those of the class below, transformers initialises "
    "them at random: load a checkpoint converted to its format, often one with -hf in its name."
)
#: Printed when a config names its authors' architecture, and transformers' format has the same type.
AUTHORS_FORMAT = (
    "Only vLLM reads the format of {}, as its authors publish it. For all other uses, load a conversion to "
    "transformers' format, such as {}."
)
#: Printed about a type with two formats, if nothing says which one is meant.
EACH_FORMAT = "  formats     vLLM reads its authors' ({}), transformers its own ({})"
#: First word of a test's name -> the mode, as the table in adapters/models.md calls it.
MODES = {
    "sampled": "sampling",
    "static": "static cache",
    "uncached": "no cache",
    "loop": "own decode loop",
    "embedded": "inputs_embeds",
}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        type=not_empty,
        metavar="NAME",
        help="class or model type, or part of one, checkpoint on Hugging Face, or model folder (default: all)",
    )


def run(options: Namespace) -> None:
    """List the supported model classes, with their strategies, inputs (images, videos) and vLLM support.

    Given a class, a checkpoint or a model folder, prints everything about it, or why it is refused.
    """
    from tokenprune.adapters.tested import read_tested

    families = read_tested()
    if options.name is None:
        _print_all(list(families.values()))
        return
    checkpoint = read_folder(Path(options.name)) or _guessed(options.name, families)
    if checkpoint is None:
        _print_matching(options.name, families)
    else:
        _print_checkpoint(options.name, checkpoint, families)


def strategies_of(tested: Tested) -> list[str]:
    """Return the names of the strategies that can prune a class with their default settings."""
    from tokenprune.adapters.record import record_of
    from tokenprune.strategies import STRATEGIES
    from tokenprune.strategy import StagedStrategy

    names = []
    for name, kind in STRATEGIES.items():
        strategy = kind(keep_ratio=0.9)  # high enough that no schedule's budget is used up before its first stage
        stages = strategy.stages(32) if isinstance(strategy, StagedStrategy) else ()
        inside = not stages or (tested.stages and stages[0].layer >= record_of(tested.model_type).first_stage)
        if strategy.required_statistics <= set(tested.statistics) and inside:
            names.append(name)
    return names


def _print_all(tested: list[Tested]) -> None:
    from rich.table import Table

    from tokenprune.evals.cli.output import console
    from tokenprune.serving.vllm.architectures.releases import releases_with
    from tokenprune.strategies import STRATEGIES

    classes = {row.class_name: row for row in reversed(tested)}
    headings = "class", "model type", "contract", "strategies", "images, videos", "vLLM"
    lines = [f"{contract:<21} {meaning}" for contract, meaning in CONTRACTS.items()]
    equals = "Pruning equals, to 2e-5 in float32, on tiny models of every class:"
    table = Table(*headings, caption="\n".join([equals, *lines]), caption_justify="left")
    for name in sorted(classes):
        row = classes[name]
        n_strategies = f"{len(strategies_of(row))} of {len(STRATEGIES)}"
        whole = _whole(row.model_type)
        vllm = "no" if in_vllm(whole) else releases_with(served_by(whole)) or "yes"
        table.add_row(name, row.model_type, row.contract, n_strategies, ", ".join(row.modalities), vllm)
    screen = console(150)
    screen.print(table)
    refused = _refusals()
    screen.print(
        f"{len(classes)} classes. {len(refused)} are refused: tokenprune models NAME says why, and which strategies a "
        f"class can use. For any other transformers class, try patch(..., adapter=tokenprune.GenericAdapter)."
    )


def _print_matching(wanted: str, families: dict[str, Tested]) -> None:
    """Print everything about the classes that have this in their name or type; if there are none, about the checkpoint
    of this name, whoever published it."""
    from tokenprune.serving.vllm.architectures.checkpoints import CONVERTED, ONLY_VLLM

    checkpoint = next(
        (Checkpoint(model_type) for model_type in (*ONLY_VLLM, *CONVERTED) if plain(model_type) == plain(wanted)), None
    )
    if checkpoint is not None and wanted not in {tested.model_type for tested in families.values()}:
        _print_checkpoint(wanted, checkpoint, families)
        return
    chosen = {key: tested for key, tested in families.items() if _matches(wanted, tested.class_name, tested.model_type)}
    refused = [text for text in _refusals() if _matches(wanted, text.split()[0])]
    if not chosen and not refused:
        checkpoint = _guessed(f"_/{wanted}", families) if "-" in wanted else None  # types and classes have no hyphen
        if checkpoint is not None:
            _print_checkpoint(wanted, checkpoint, families)
            return
        if Path(wanted).is_file():
            raise SystemExit(f"Error: {wanted} is a file. Name the folder of the model: {Path(wanted).parent}")
        if Path(wanted).is_dir():
            raise SystemExit(
                f"Error: {wanted}: this folder has no config.json with a model_type, so it is not a model folder. For "
                f"the models that can be pruned, type: tokenprune models"
            )
        names = {name for tested in families.values() for name in (tested.class_name, tested.model_type)}
        close = part_of(wanted, names) or next(iter(get_close_matches(wanted.lower(), sorted(names), 1)), None)
        hint = f" Did you mean {close}?" if close and "/" not in wanted else ""
        raise SystemExit(
            f"Error: no class or model type has {wanted!r} in its name.{hint} Look for model_type in the model's "
            f"config.json, or type: tokenprune models"
        )
    for family, tested in chosen.items():
        _print_one(family, tested, _whole(tested.model_type))
    if refused:
        print(*refused, sep="\n")


def _guessed(name: str, families: dict[str, Tested]) -> Checkpoint | None:
    """Return the checkpoint that a Hugging Face name stands for, and print its type; None if the name does not say."""
    from tokenprune.serving.vllm.architectures.checkpoints import ONLY_VLLM

    checkpoint = guess(name, {tested.model_type for tested in families.values()} | ONLY_VLLM.keys())
    if checkpoint is not None:
        print(BY_NAME.format(name.removeprefix("_/"), checkpoint.model_type))
    return checkpoint


def _print_checkpoint(name: str, checkpoint: Checkpoint, families: dict[str, Tested]) -> None:
    """Print everything about the classes that read a checkpoint."""
    from tokenprune.serving.vllm.architectures.checkpoints import CONVERTED, ONLY_VLLM, TWO_FORMATS, checkpoint_type

    model_type, wanted = checkpoint.model_type, checkpoint.converted_type
    if model_type in ONLY_VLLM and wanted == model_type:
        like = next(tested for tested in families.values() if tested.model_type == ONLY_VLLM[model_type])
        print(f"Only vLLM reads {model_type}, not transformers: no command except `tokenprune serve` takes it.")
        _print_vllm(checkpoint, strategies_of(like))
        return
    if model_type in CONVERTED or model_type in ONLY_VLLM:
        print(f"Only vLLM reads the format {model_type}. For all other uses, convert the checkpoint to {wanted}.")
    formats = TWO_FORMATS.get(model_type)
    if formats is not None and formats.replaces in checkpoint.architectures:
        print(AUTHORS_FORMAT.format(formats.replaces, formats.conversion))
    chosen = {
        key: tested
        for key, tested in families.items()
        if wanted in (tested.model_type, checkpoint_type(tested.model_type))
    }
    refused = [text for text in _refusals() if _is_refused(text.split()[0], checkpoint)]
    if not chosen and not refused:
        raise SystemExit(
            f"Error: {name}: a model of type {model_type!r} can be pruned neither in transformers nor inside vLLM. For "
            f"the models that can, type: tokenprune models"
        )
    fits = any(checkpoint.is_of(tested.class_name) for tested in chosen.values())
    if not fits and not refused and model_type not in CONVERTED and formats is None:
        print(OTHER_NAMES.format(", ".join(checkpoint.architectures)))
    for family, tested in _with_tower(chosen, checkpoint.tower).items():
        _print_one(family, tested, checkpoint)
    if refused:
        print(*refused, sep="\n")


def _print_one(family: str, tested: Tested, checkpoint: Checkpoint) -> None:
    """Print everything about a class, and whether vLLM prunes a checkpoint of it."""
    from tokenprune.adapters.record import record_of
    from tokenprune.serving.vllm.architectures.checkpoints import TWO_FORMATS

    can = strategies_of(tested)
    n_passed = sum(outcome == "passed" for outcome in tested.cells.values())
    lacks = sorted(_mode(cell) for cell, outcome in tested.cells.items() if outcome == "cannot")
    print(f"{tested.class_name} ({tested.model_type}), read by {tested.adapter}")
    print(f"  contract    {tested.contract}: pruning equals {CONTRACTS[tested.contract]}")
    print(f"  tested      {n_passed} tests of {family}, largest difference {tested.error:.0e}")
    print(f"  inputs      {', '.join(tested.modalities)}")
    print(f"  strategies  {', '.join(can)}")
    if (first := record_of(tested.model_type).first_stage) > 1:
        print(f"  inside      the language model only from decoder layer {first} on, such as fastv:layer={first}")
    if tested.model_type in TWO_FORMATS and not checkpoint.architectures:
        formats = TWO_FORMATS[tested.model_type]
        print(EACH_FORMAT.format(formats.published[0], formats.conversion))
    _print_vllm(checkpoint, can)
    if lacks:
        print(f"  not         {', '.join(lacks)}: transformers itself does not support it")


def _print_vllm(checkpoint: Checkpoint, strategies: list[str]) -> None:
    """Print which of these strategies vLLM runs too, which `tokenprune serve` takes if none is named, and for a model
    that not all releases of vLLM have, which do."""
    from tokenprune.serving.vllm.architectures.releases import reason_of_lack, releases_with

    refused = in_vllm(checkpoint)
    can_serve, reason = ([], refused) if refused else served(checkpoint, strategies)
    print(
        f"  vLLM        tokenprune serve, with {', '.join(can_serve)}" if can_serve else f"  vLLM        no: {reason}"
    )
    possible = [strategy for strategy in SERVED_STRATEGIES if strategy.partition(":")[0] in can_serve]
    if default := served(checkpoint, possible)[0] if possible else []:
        print(f"  default     {default[0]}, without --strategy")
    if can_serve and (releases := releases_with(served_by(checkpoint))) is not None:
        print(f"  releases    {reason_of_lack(served_by(checkpoint)) or f'vLLM {releases}'}")


def _whole(model_type: str) -> Checkpoint:
    """Return the checkpoint that contains a class of this type: as the whole model, or as its thinker."""
    from tokenprune.serving.vllm.architectures.checkpoints import checkpoint_type

    return Checkpoint(checkpoint_type(model_type))


def _is_refused(class_name: str, checkpoint: Checkpoint) -> bool:
    named = plain(class_name).startswith(plain(checkpoint.model_type) + "for")
    return named or class_name in checkpoint.architectures


def _refusals() -> list[str]:
    from tokenprune.adapters.refused import NEVER, NOT_YET, parts, refusal

    return [refusal([name]) for name in sorted([*NEVER, *NOT_YET, *parts()])]


def _mode(cell: str) -> str:
    mode, _, batch = cell.partition(" ")
    return f"{MODES.get(mode, mode)} ({batch})" if batch else mode


def _with_tower(families: dict[str, Tested], tower: str | None) -> dict[str, Tested]:
    """Return the families tested with this tower, which is in their names (llava-dinov2), or all if none was."""
    if tower is None:
        return families
    named = {
        key: tested
        for key, tested in families.items()
        if any(plain(tower).startswith(part) for part in key.split("-")[1:])
    }
    return named or families


def _matches(wanted: str, *names: str) -> bool:
    """Return whether one of the names contains `wanted`, ignoring case and punctuation: Qwen3-VL is in qwen3_vl."""
    return any(plain(wanted) in plain(name) for name in names)
