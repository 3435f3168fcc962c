"""The architectures, one file per family: vLLM's own model with our selection. vLLM takes the class of an architecture
from here, by the architecture's name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.relied_on import lack


def __getattr__(name: str) -> Any:
    if name not in ARCHITECTURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, class_name = ARCHITECTURES[name].home.split(":")
    try:
        return getattr(import_module(f"{__name__}.{module}"), class_name)
    except (ImportError, AttributeError) as error:
        reason = lack(error, name)
        if reason is None:
            raise
        raise UnsupportedError(reason) from error
