"""Identify a run: everything that affects its answers, for `run.json`."""

import hashlib
import inspect
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

import tokenprune
from tokenprune.adapters.devices import input_device, offloaded_weights
from tokenprune.evals.models.greedy import decisive_settings
from tokenprune.evals.models.tensors import stored
from tokenprune.evals.reading.images import StoredImage, content_digest
from tokenprune.evals.tasks.base.question import Question

#: Packages whose source is not in a digest, because a run stores their versions; but that of strategies is,
#: which change in a clone without another version.
KNOWN = {"tokenprune", "builtins", "abc", "typing"}
STRATEGIES = f"{tokenprune.__name__}.strategies."
#: How many values of each weight enter the digest.
SAMPLED = 64
#: The names of full precision of float32 products, and of the default.
FULL_PRECISION = {"ieee", "none", "highest"}
#: Kinds of kernels, and their names in a config.
KERNELS = {"attention": "attn", "experts": "experts"}
#: Config keys that say where weights are from and how they are stored, or that an identity has beside the digest.
NOT_DECISIVE = {
    *("_name_or_path", "architectures", "transformers_version", "use_cache"),
    *("dtype", "torch_dtype", "quantization_config"),
}


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "tokenprune": tokenprune.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def model_identity(model: Any) -> dict[str, Any]:
    quantised = getattr(model.config, "quantization_config", None)  # also describes activations
    return {
        "class": type(model).__name__,
        "weights": weights_digest(model),
        **({} if quantised is None else {"quantised": quantised.to_dict()}),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device_name(input_device(model)),
        **matmul_precision(),
    }


def answering_identity(model: Any, processor: Any) -> dict[str, Any]:
    """Return everything about a model and its processor that affects greedy answers."""
    return {
        **model_identity(model),
        "config": config_digest(model.config),
        "kernels": kernels(model),
        "generation": generation_identity(model.generation_config.to_diff_dict()),
        "processor": processor_digest(processor),
    }


def config_digest(config: Any) -> str:
    """Return a digest of the settings that affect what a model computes, such as those of rotary embeddings."""
    return _digest(_decisive(config.to_dict()))


def kernels(model: Any) -> dict[str, dict[str, str]]:
    """Return what each part of a model computes with, by type: the implementations of attention and of experts, which
    transformers sets whether or not a part has any, and "hub" if any of its layers computes with a kernel from there.
    Loading asks for kernels by default from transformers 5.25 on, but most devices have none."""
    kinds: dict[str, dict[str, str]] = {}
    for part in (module for module in model.modules() if isinstance(module, PreTrainedModel)):
        chosen = {kind: getattr(part.config, f"_{name}_implementation", None) for kind, name in KERNELS.items()}
        chosen["layers"] = "hub" if any(map(_has_kernel, part.modules())) else None
        kinds.setdefault(part.config.model_type, {kind: name for kind, name in chosen.items() if name is not None})
    return kinds


def _has_kernel(layer: torch.nn.Module) -> bool:
    """Whether the package kernels replaced the forward of a layer, or of a function that the layer calls."""
    for part in (layer, *vars(layer).get("_kernel_funcs", {}).values()):
        forward = vars(part).get("_old_forward", vars(part).get("forward"))  # under a hook of accelerate's, or alone
        own = getattr(forward, "__func__", None)
        if hasattr(part, "kernel_layer_name") and own not in (None, type(part).forward):
            return True
    return False


def generation_identity(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a generation config that end or change greedy answers."""
    settings = {"eos_token_id": generation.get("eos_token_id"), **decisive_settings(generation)}
    plain = bool, int, float, str, list, type(None)
    return {name: value if isinstance(value, plain) else repr(value) for name, value in settings.items()}


def weights_digest(model: Any) -> str:
    """Return a digest of the model's class and of the name, shape and up to SAMPLED values of each weight; for
    quantised ones, of their integers and scales.

    It does not depend on the device, nor on whether accelerate offloads weights.
    """
    digest, offloaded = hashlib.sha256(type(model).__name__.encode()), offloaded_weights(model)
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        if isinstance(weight, torch.Tensor):
            module, _, own_name = name.rpartition(".")
            weight = offloaded[module][own_name] if weight.is_meta else weight
            for part in stored(weight.detach()):
                values = part.flatten()[:: max(1, part.numel() // SAMPLED)][:SAMPLED]
                digest.update(values.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def processor_digest(processor: Any) -> str:
    """Return a digest of a processor's settings (sizes, normalisation, chat template), not of its vocabulary."""
    return _digest({**processor.to_dict(), "chat_template": getattr(processor, "chat_template", None)})


def class_identity(strategy: tokenprune.Strategy | type[tokenprune.Strategy]) -> dict[str, str]:
    """Return a digest of the source of a strategy's class, by "class"; {} if it has none, as in an interactive session.

    For a `Compose`, of its steps' classes too. Functions that the class calls are not included, nor tokenprune's base
    classes, which the version identifies.
    """
    kinds = [step if isinstance(step, type) else type(step) for step in (strategy, *getattr(strategy, "steps", ()))]
    own = [
        cls
        for kind in kinds
        for cls in kind.__mro__
        if cls.__module__.startswith(STRATEGIES) or cls.__module__.partition(".")[0] not in KNOWN
    ]
    try:
        sources = [inspect.getsource(cls) for cls in own]
    except (OSError, TypeError):
        return {}
    return {"class": hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]} if sources else {}


def matmul_precision() -> dict[str, str]:
    """Return PyTorch's precision of products of float32 matrices, by "float32_matmul"; {} for full precision, the
    default, which older records do not name either."""
    precision = getattr(torch.backends.cuda.matmul, "fp32_precision", None)  # since PyTorch 2.9; the older name for it
    precision = precision or torch.get_float32_matmul_precision()  # raises if this one was set
    return {} if precision in FULL_PRECISION else {"float32_matmul": precision}


def device_name(device: torch.device) -> str:
    """Return the kind of device without its number, because a run may use several."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def tasks_identity(questions: Sequence[Question]) -> dict[str, Any]:
    """Return, for each task, its number of questions, a digest of questions, right answers and images, and one of which
    images each question is about."""
    tasks = dict.fromkeys(question.task for question in questions)
    return {task: _identity([question for question in questions if question.task == task]) for task in tasks}


def _identity(questions: Sequence[Question]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for question in questions:
        # Fields that are not data, such as the prompt style, show in the question's text.
        data = {field.name: getattr(question, field.name) for field in fields(question) if field.name != "images"}
        digest.update(json.dumps(data, default=_for_json).encode())
    numbers = dict[StoredImage, int]()
    about = [[numbers.setdefault(image, len(numbers)) for image in question.images] for question in questions]
    for image in numbers:
        digest.update(bytes.fromhex(content_digest(image)))
    images = hashlib.sha256(json.dumps(about).encode())
    return {"questions": len(questions), "digest": digest.hexdigest()[:16], "images": images.hexdigest()[:16]}


def _digest(settings: Mapping[str, Any]) -> str:
    described = json.dumps(settings, sort_keys=True, default=lambda value: type(value).__name__)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _decisive(config: Mapping[Any, Any]) -> dict[Any, Any]:
    """A config without the keys in NOT_DECISIVE, nested ones included."""
    return {
        key: _decisive(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in NOT_DECISIVE
    }


def _for_json(value: object) -> list[str] | None:
    """Return a set of strings as a sorted list, and None for anything else that JSON cannot represent."""
    return sorted(value) if isinstance(value, (set, frozenset)) else None
