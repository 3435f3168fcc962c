"""Wrappers around a model that only forward its calls."""

from __future__ import annotations

from typing import Any

from torch import nn

from tokenprune.errors import UnsupportedError

#: The name under which torch's activation checkpointing holds the part of a model that it wraps.
CHECKPOINTED = "_checkpoint_wrapped_module"
#: The names that torch's wrappers use, including torch.compile's.
PARTS = ("_orig_mod", CHECKPOINTED)


def check_model(model: object) -> nn.Module:
    """Return the model. Raises UnsupportedError unless it is a module."""
    if isinstance(model, nn.Module):
        return model
    said = repr(model) if isinstance(model, (str, type, type(None))) else f"a {type(model).__name__}"
    if isinstance(getattr(model, "model", None), nn.Module):  # a pipeline, or the handle of a patch
        raise UnsupportedError(f"{said} is not a model. Pass the model inside it: its .model.")
    raise UnsupportedError(f"{said} is not a model. Pass the loaded Hugging Face model, as from_pretrained returns it.")


def unwrap_model(model: Any) -> Any:
    """Return the Hugging Face model inside the wrappers of torch.compile, PEFT and DistributedDataParallel; anything
    else unchanged.

    Raises UnsupportedError for PEFT's prompt learning, whose virtual tokens precede the prompt, and for wrappers that
    shard or copy the modules inside.
    """
    while True:
        # torch.compile(model). accelerate's compile_regions gives the original the same name, but has its own modules.
        if hasattr(model, "_orig_mod") and "_orig_mod" not in vars(model):
            model = model._orig_mod
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(model, nn.DataParallel):
            raise _copied()
        elif type(model).__name__ == "FullyShardedDataParallel":  # by name: torch imports it on demand
            raise UnsupportedError(
                "FullyShardedDataParallel replaces modules that a patch reads: patch() the model before you wrap it."
            )
        elif hasattr(model, "get_base_model"):  # peft.get_peft_model(model, ...)
            _check_weights_only(model)
            model = model.get_base_model()
        else:
            return model


def check_no_replica(model: nn.Module) -> None:
    """Raise UnsupportedError for one of the copies that DataParallel makes of a patched model for a call. The copies
    have the original's hooks and overridden methods, which would compute with its weights."""
    if getattr(model, "_is_replica", False):
        raise _copied()


def check_generates_itself(model: nn.Module) -> None:
    """Raise UnsupportedError if PEFT's prompt learning, around the patched model, prepares every step of its
    `generate`. A single forward is as exact as any: its virtual tokens come as embeddings or as a cache."""
    preparing = getattr(vars(model).get("prepare_inputs_for_generation"), "__self__", None)
    if hasattr(preparing, "active_peft_config"):
        _check_weights_only(preparing)


def _copied() -> UnsupportedError:
    return UnsupportedError(
        "DataParallel copies the model for every call, and a patch belongs to one model. Use "
        "torch.nn.parallel.DistributedDataParallel (transformers' Trainer does if it is started with torchrun), or one "
        "GPU: pass the model inside (.module) and call that."
    )


def _check_weights_only(wrapper: Any) -> None:
    """Raise UnsupportedError for a PEFT method that does more than change weights."""
    if wrapper.active_peft_config.is_prompt_learning:
        raise UnsupportedError(
            f"{wrapper.active_peft_config.peft_type.value} puts virtual tokens before the prompt, which pruning cannot "
            f"account for. Use LoRA, or another PEFT method that changes weights only."
        )


def unwrap_part(module: nn.Module) -> nn.Module:
    """Return the part of a model inside torch's wrappers, which take any arguments and pass them on; an unwrapped
    module is returned as it is."""
    while (name := next((name for name in PARTS if name in module._modules), None)) is not None:
        module = module.get_submodule(name)
    return module
