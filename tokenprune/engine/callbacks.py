"""The hooks on modules of which a model has many: functions, each bound to its listener and to the module's number by
`functools.partial`, which copies and pickles along with the model.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tokenprune.engine.call import uncompiled
from tokenprune.engine.recording import VisionRecorder
from tokenprune.engine.tower import TowerPruning
from tokenprune.tokens.text_attention import TextRecorder


@uncompiled
def after_tap(listener: VisionRecorder | TowerPruning, name: str, module: nn.Module, args: Any, output: Any) -> None:
    """A forward hook that tells what a tapped module of the vision tower returned."""
    listener.after_tap(name, output)


@uncompiled
def before_encoder_layer(tower: TowerPruning, number: int, module: nn.Module, args: Any, kwargs: Any) -> Any:
    """A forward pre-hook that shortens a vision-encoder layer's arguments to the patches that are left."""
    return tower.before_layer(number, module, args, kwargs)


@uncompiled
def before_attention(recorder: TextRecorder, layer: int, module: nn.Module, args: Any, kwargs: Any) -> None:
    """A forward pre-hook that tells the recorder with what a decoder layer's attention is called."""
    recorder.before_attention(layer, kwargs)


@uncompiled
def after_text_tap(recorder: TextRecorder, layer: int, name: str, module: nn.Module, args: Any, output: Any) -> None:
    """A forward hook that tells the recorder what a tapped module of a decoder layer returned."""
    recorder.after_tap(layer, name, output)
