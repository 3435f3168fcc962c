"""Load a model with its processor."""

import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig
from transformers.utils import logging

from tokenprune.errors import DataError, SettingError, TokenPruneError, unknown
from tokenprune.evals.models.bundled import MODEL
from tokenprune.evals.models.dtypes import DTYPES
from tokenprune.evals.models.prompt_styles import Style, style_of
from tokenprune.serving.vllm.architectures.checkpoints import TWO_FORMATS
from tokenprune.text_files import read_json

#: Measured with torch 2.13: 5 times for x @ w.T, as linear layers have it; 215 times for 512x2048 @ 2048x2048.
SLOW = "bfloat16 is 5 to 200 times slower than float32 on this CPU, which has no instructions for it"

#: How `device_map` can spread a model over all devices.
SPREAD = "auto", "balanced", "balanced_low_0", "sequential"


def load_model(
    name: str, dtype: str = "float32", device: str | None = None, device_map: str | None = None
) -> tuple[Any, Any]:
    """Return (model, processor) from a folder or a Hugging Face name.

    device: where the model goes; by default the GPU if there is one. dtype: "auto" is the dtype of the weights, but
    float32 for float16 weights on a CPU, where float16 is several times slower, and for bfloat16 weights on a CPU
    without `has_bfloat16`, which a line on stderr says; quantised weights stay as they are. device_map:
    `from_pretrained`'s, instead of `device`; "auto" spreads a model over all devices. DataError if there is no such
    model, or if it is in another format, without some of the weights; SettingError if it is quantised and cannot have
    the dtype.
    """
    if dtype not in DTYPES:
        raise SettingError(unknown("dtype", dtype, DTYPES))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    slow = device_map is None and torch.device(device).type == "cpu" and not has_bfloat16()
    if slow and dtype == "bfloat16":
        print(f"Warning: {SLOW}. Write --dtype float32.", file=sys.stderr)
    if device_map is not None:
        _check_device_map(device_map)
    config, processor = load_processor(name)
    torch_dtype = dtype if dtype == "auto" else getattr(torch, dtype)
    with named(name, "weights"), _progress_on_terminals():
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            name, config=config, dtype=torch_dtype, device_map=device_map, output_loading_info=True
        )
    model, info = loaded
    _check_weights(name, model, info["missing_keys"])
    quantised = getattr(model, "is_quantized", False)
    if quantised and dtype != "auto":
        _check_dtype(name, model, dtype)
    if device_map is None:
        model.to(device)
        if dtype == "auto" and not quantised and model.dtype == torch.bfloat16 and slow:
            print(f"{public_name(name)}: loaded in float32, because {SLOW}.", file=sys.stderr)
            model.float()
        elif dtype == "auto" and not quantised and model.dtype == torch.float16 and model.device.type == "cpu":
            model.float()
    return model.eval(), processor


def _check_device_map(device_map: str) -> None:
    """transformers' errors about it would be taken for ones of the weights."""
    if device_map in SPREAD:
        return
    try:
        torch.empty(0, device=device_map)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingError(
            f"device_map (--device-map) {device_map!r}: {str(error).splitlines()[0].rstrip('.')}. Write auto, or a "
            f"device of this machine, such as cpu"
        ) from error


def has_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 matrices about as fast as float32 ones."""
    # torch's own check before it passes them to oneDNN; the public functions (since torch 2.13) name instruction sets.
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _check_weights(name: str, model: Any, missing: Collection[str]) -> None:
    """transformers initialises missing weights at random, and only warns. If the config names the model's own class,
    unused weights may be missing, such as a tower's pooling head; if it names another class, the format is another."""
    named, kind = model.config.architectures or (), type(model).__name__
    if missing and named and kind not in named:
        raise DataError(
            f"{name}: {len(missing)} weights of a {kind} are not in it, such as {min(missing)}, and would be random. "
            f"It is in another format ({', '.join(named)}): name a conversion to transformers', often with -hf at "
            f"the end"
        )


def _check_dtype(name: str, model: Any, dtype: str) -> None:
    """bitsandbytes leaves some unquantised weights in the file's dtype, whatever dtype is requested."""
    for stored in {weight.dtype for weight in model.parameters() if type(weight) is nn.Parameter}:
        if stored in (torch.float16, torch.bfloat16) and stored is not getattr(torch, dtype):
            kept = str(stored).removeprefix("torch.")
            raise SettingError(
                f"{name}: the model is quantised, and some of its weights stay in {kept} when it is loaded in {dtype}. "
                f"Write --dtype {kept}."
            )


def load_processor(name: str) -> tuple[Any, Any]:
    """Return (config, processor) from a folder or a Hugging Face name: what is needed to ask a model questions.

    DataError if there is no such model, or if it is of a kind that answers no questions about images.
    """
    if Path(name) == MODEL and not (MODEL / "model.safetensors").is_file():
        raise DataError(f"{MODEL}: only a clone has the bundled model; write --model, or pip install -e a clone")
    is_folder = Path(name).is_dir()
    if not is_folder and (Path(name).is_absolute() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name[0] == "."):
        address = re.fullmatch(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+).*", name)
        if address is not None:
            raise DataError(f"{name}: an address; write --model {address[1]}")
        raise DataError(f"{name}: no such folder; --model takes a folder with a config.json or a Hugging Face name")
    if is_folder and not (Path(name) / "config.json").is_file():
        raise DataError(f"{name}: no config.json in this folder, so it is not a model; name a folder that has one")
    with named(name, "config.json"):
        config: Any = AutoConfig.from_pretrained(name, trust_remote_code=False)  # None would ask on the terminal
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise DataError(
            f"{name}: its config.json describes a {getattr(config, 'model_type', None)!r} model, which transformers' "
            "AutoModelForImageTextToText does not load; name a vision-language model"
        )
    formats = TWO_FORMATS.get(config.model_type)
    if formats is not None and formats.replaces in (config.architectures or ()):  # transformers would ignore its parts
        raise DataError(
            f"{name}: in the format of {formats.replaces}, as its authors publish it, which only vLLM reads; name a "
            f"conversion to transformers' format, such as {formats.conversion}"
        )
    with named(name, "processor"):
        return config, AutoProcessor.from_pretrained(name)


def read_config(name: str, revision: str | None = None) -> dict[str, Any]:
    """Return the config.json of a folder or a Hugging Face name. DataError if there is none."""
    with named(name, "config.json"):
        config, _ = PreTrainedConfig.get_config_dict(name, revision=revision)
    if not config:
        raise DataError(f"{name}: found no config.json, so it is not a model; name a folder or a Hugging Face model")
    return config


@contextmanager
def named(name: str, what: str) -> Iterator[None]:
    """Raise DataError, with the first line of the reason, for any error of loading this part of a model but one for
    lack of memory; SettingError if transformers says that it needs a package."""
    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError, ModuleNotFoundError, TokenPruneError):
        raise
    except ImportError as error:  # of several lines in a row
        raise SettingError(f"{name}: {' '.join(str(error).split())}") from error
    except Exception as error:  # transformers, safetensors and huggingface_hub raise any type
        if "trust_remote_code" in str(error):
            raise DataError(
                f"{name}: this checkpoint needs trust_remote_code, and commands run no code of a model. Name one in "
                f"transformers' format, often with -hf at the end, or load it in Python and pass (model, processor)"
            ) from error
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0].rstrip('.')}"
        if (file := Path(name, what)).suffix == ".json" and file.is_file():
            read_json(file)  # whose error names line and column of broken JSON
        if Path(name).is_dir():
            raise DataError(f"{name}: cannot read the {what} of this folder ({reason})") from error
        raise DataError(
            f"{name} is not a folder, and its {what} cannot be fetched from Hugging Face: check the spelling, or "
            f"download the model first ({reason})"
        ) from error


@contextmanager
def _progress_on_terminals() -> Iterator[None]:
    """Show transformers' progress bars only if they do not end up in a file or pipe with a command's output."""
    was_shown = logging.is_progress_bar_enabled()
    if not (sys.stderr.isatty() and sys.stdout.isatty()):
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            logging.enable_progress_bar()


def public_name(model: str) -> str:
    """Return the model's name for results: for a folder, its path relative to the current one, or else its last
    part."""
    path = Path(model).resolve()
    if not path.is_dir():
        return model
    here = Path.cwd().resolve()
    return path.relative_to(here).as_posix() if here in path.parents else path.name


def name_and_style(model: str | tuple[Any, Any]) -> tuple[str, Style]:
    """Return a model's name for results and its prompt style, without loading weights.

    model: a folder or a Hugging Face name; or a pair of a loaded model and its processor.
    """
    if isinstance(model, str):
        return public_name(model), style_of(*load_processor(model))
    loaded, processor = model
    source = source_of(model)
    return public_name(source) if source else type(loaded).__name__, style_of(loaded.config, processor)


def source_of(model: str | tuple[Any, Any]) -> str:
    """Return the folder or Hugging Face name that a model, or a loaded one with its processor, is from; "" if it was
    made in Python."""
    return model if isinstance(model, str) else model[0].config._name_or_path
