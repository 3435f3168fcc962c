"""What all supported transformers models have in common, in all supported versions: names, how calls are made, and what
wraps a model only to forward its calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MethodType
from typing import Any

from torch import Tensor, nn

from tokenprune.errors import PruningError, UnsupportedError

#: The method of a model that every use of continuous batching goes through: `generate_batch`, and servers.
CONTINUOUS_BATCHING = "init_continuous_batching"

#: The method of a model that returns the candidate generator in assisted decoding, called with keyword arguments; and
#: the generators that read one hidden state of the model for every token of the prompt.
CANDIDATE_GENERATOR = "_get_candidate_generator"
HIDDEN_STATE_GENERATORS = ("MTPCandidateGenerator", "DFlashTokenCandidateGenerator")

#: The argument, and setting, that makes models compute a load-balancing loss of their experts over the mask's tokens.
ROUTED = "output_router_logits"

#: Names of the cache in arguments and outputs: the first since transformers 5.2x, the second before.
CACHE_NAMES = ("cache", "past_key_values")

#: The names of the pixels among the arguments of vision towers.
TOWER_PIXELS = ("pixel_values", "hidden_states")

#: The argument that makes vision towers interpolate their position embeddings to the size of their images.
ANY_SIZE = {"interpolate_pos_encoding": True}

#: Arguments of a model that mark the ends of sequences packed in one row.
PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")

#: The package whose forwards, installed on a model by the Trainer, compute the loss themselves, without checking sizes.
FUSES_LOSS = "liger_kernel"

#: The name under which torch's activation checkpointing holds the part of a model that it wraps.
CHECKPOINTED = "_checkpoint_wrapped_module"
#: The names that torch's wrappers use, including torch.compile's.
PARTS = ("_orig_mod", CHECKPOINTED)


def named_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a module's call by name, in a new dict."""
    return bind_arguments(unwrap_part(module).forward, args, kwargs) if args else dict(kwargs)


def bind_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, including those that ** collects."""
    method = isinstance(function, MethodType)
    signature = _signature(function.__func__) if method else inspect.signature(function)
    named = dict(signature.bind_partial(*((None, *args) if method else args), **kwargs).arguments)
    if method:
        del named[next(iter(signature.parameters))]
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    return named


def hidden_states_first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a layer's call, with hidden states passed by name moved to the first position."""
    if args:
        return args, kwargs
    others = dict(kwargs)
    return (others.pop("hidden_states"),), others


def new_size(kwargs: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many rows and columns a call of the base model brings."""
    new = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
    return new.shape[0], new.shape[1]


def find_cache(*places: Any) -> Any:
    """Return the first cache in the arguments or outputs of a call; None if there is none."""
    for place in places:
        if isinstance(place, dict):
            # dict's own get: an output warns when asked for the old name.
            for name in CACHE_NAMES:
                if (cache := dict.get(place, name)) is not None:
                    return cache
        # Under another name, or in a tuple.
        values = place.values() if isinstance(place, dict) else place if isinstance(place, tuple) else ()
        for value in values:
            if hasattr(value, "get_seq_length") and hasattr(value, "update"):
                return value
    return None


@cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a class's function; a bound method as the key would keep its model alive."""
    return inspect.signature(function)


def unprunable_arguments(kwargs: Mapping[str, Any], model: Any) -> list[str]:
    """Return the arguments in a call of a model that only fit the unpruned sequence, by name."""
    config = model.config
    refused = ["logits_to_keep"] if isinstance(kwargs.get("logits_to_keep"), Tensor) else []
    refused += packed_arguments(kwargs)
    if kwargs.get("labels") is not None and _innermost(model.forward).__module__.startswith(FUSES_LOSS):
        refused.append("labels with use_liger_kernel=True")
    routed = kwargs.get(ROUTED)
    if routed is None and kwargs.get("labels") is not None:
        routed = any(getattr(part, ROUTED, False) for part in (config, config.get_text_config()))
    if routed and kwargs.get("attention_mask") is not None:
        refused.append(f"{ROUTED} with an attention_mask")
    return refused


def packed_arguments(kwargs: Mapping[str, Any]) -> list[str]:
    """Return the arguments in a call that mark the ends of packed sequences, by name. A base model passes them on to
    its language model."""
    return [name for name in PACKED if kwargs.get(name) is not None]


def counts_from_end(model: Any) -> bool:
    """Return whether a model has a PEFT adapter that is active from certain tokens on (aLoRA). PEFT counts their places
    from the end of the unpruned rows, padding included."""
    configs = (getattr(model, "peft_config", None) or {}).values()
    return any(getattr(config, "alora_invocation_tokens", None) is not None for config in configs)


def _innermost(forward: Any) -> Any:
    """The function that a forward, however wrapped, ultimately calls."""
    inside = inspect.unwrap(forward)
    return inside.func if isinstance(inside, partial) else inside


def tiles_in(arguments: Mapping[str, Any], adapter: str) -> list[Any]:
    """Return the tiles in a call of a vision tower, one by one, from its arguments by name. Raises PruningError for a
    tower that names its pixels differently; the error names the `adapter` class."""
    name = next((name for name in TOWER_PIXELS if name in arguments), None)
    if name is None:
        raise PruningError(
            f"{adapter} does not know which argument of its vision tower holds the pixels that the strategy needs: the "
            f"tower was called with {', '.join(arguments)}. Override tile_pixels(self, arguments) in {adapter}, and "
            f"return the pixels of every tile, (channels, height, width) each. See adapters/README.md."
        )
    return list(arguments[name])


def interpolates_if_told(tower: Any) -> bool:
    """Return whether a vision tower takes images of other sizes than its own only with `ANY_SIZE`."""
    return next(iter(ANY_SIZE)) in inspect.signature(tower.forward).parameters


def loss_function(model: Any) -> tuple[str, Callable[..., Any]]:
    """Return the attribute that sets the loss function of one model instance, and the function in use now. It is called
    with logits, labels and whatever else the loss needs."""
    return "_loss_function", model.loss_function


def recomputes(layer: Any) -> bool:
    """Whether the backward pass runs this layer again (activation checkpointing), with the hooks of modules in it."""
    return CHECKPOINTED in layer._modules or (layer.training and getattr(layer, "gradient_checkpointing", False))


def recomputes_hooks(layer: Any, hooked: Any = None) -> bool:
    """Whether the backward pass runs this layer again with its own hooks, as activation checkpointing did until it
    wrapped the layer's `forward` instead of its call; or with those of the `hooked` module, around which torch's
    checkpointing has since been put."""
    if hooked not in (None, layer):
        return CHECKPOINTED in layer._modules
    return recomputes(layer) and type(layer).__call__ is not nn.Module.__call__


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
