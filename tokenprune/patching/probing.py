"""Reads the statistics that strategies use, without pruning anything."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.adapters import ModelAdapter, adapter_for
from tokenprune.adapters.conventions import named_arguments, unwrap_model
from tokenprune.adapters.devices import check_heads
from tokenprune.adapters.tested import is_tested
from tokenprune.checks import check_layer, is_integer
from tokenprune.engine.patch import dynamo_disabled
from tokenprune.engine.pruner import Pruner
from tokenprune.errors import PruningError, SettingError
from tokenprune.patching.decoder_attention import DecoderReader
from tokenprune.patching.pruning import Handle, patch
from tokenprune.patching.untested import check_untested
from tokenprune.selection import Selection
from tokenprune.strategy import Strategy
from tokenprune.tokens.stages import TextAttention
from tokenprune.tokens.visual import VisualTokens, check_needs


@dataclass(frozen=True)
class RecordingStrategy(Strategy):
    """Keeps every visual token and records each image.

    wanted: the statistics to record.
    layer: the encoder layer that "vision_attention" comes from.
    found: the images of the current forward, each with its `kept` tensor, by the identity of that tensor, which reports
        hold too.
    """

    keep_ratio: float | None = 1.0
    wanted: frozenset[str] = frozenset()
    layer: int | None = None
    found: dict[int, tuple[Tensor, VisualTokens]] = field(default_factory=dict, compare=False)

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.wanted

    @property
    def attention_layer(self) -> int | None:
        return self.layer

    def select(self, tokens: VisualTokens) -> Selection:
        selection = Selection.all(tokens.n_visual, tokens.features.device)
        self.found[id(selection.kept)] = selection.kept, replace(tokens, features=tokens.features.detach())
        return selection

    def __repr__(self) -> str:
        return f"probe(needs={sorted(self.wanted)}, layer={self.layer})"


@dataclass(frozen=True, eq=False, repr=False)
class ProbedImage:
    """One image of the last forward, as strategies get it.

    row: the sample of the batch that it belongs to.
    modality: "image" or "video".
    tokens: its visual tokens, with features, layout and the requested statistics.
    text_attention: the attention of the text in its row, by decoder layer.
    """

    row: int
    modality: str
    tokens: VisualTokens
    text_attention: Mapping[int, TextAttention]

    def __repr__(self) -> str:
        return f"ProbedImage(row={self.row}, {self.modality}, {self.tokens.n_visual} visual tokens)"


class Probe(Handle):
    """A model whose statistics are recorded. Use `tokenprune.probe` to make one."""

    _made_by = "probe"

    def __init__(self, adapter: ModelAdapter, strategy: RecordingStrategy, decoder_layers: Sequence[int]) -> None:
        model = adapter.model
        self._adapter, self._layers = adapter, tuple(decoder_layers)
        self._reader = DecoderReader(adapter, self._layers)
        self._record, self._suspended = strategy, Pruner.on(model)
        # Nothing is dropped, so all IDs stay; some models take only compact ones.
        self._handle = patch(model, strategy, position_ids="compact", adapter=type(adapter))
        self._hooks = [
            self._adapter.core.register_forward_pre_hook(self._before_core, with_kwargs=True),
            self._adapter.core.register_forward_hook(self._after_core, always_call=True),
        ]
        self._reader.install()

    @property
    def model(self) -> nn.Module:
        return self._handle.model

    @property
    def installed(self) -> bool:
        return self._handle.installed

    @property
    def images(self) -> list[ProbedImage]:
        """The images and videos of the last forward with any, in reading order. If a sample was repeated (beam search,
        num_return_sequences), its images appear once per repetition.

        Raises PruningError if there are none, or if the probe was removed or replaced by a patch.
        """
        if not self.installed:
            raise PruningError(
                "the probe was removed or replaced by a patch, and its statistics are gone. Read .images inside the "
                "`with` block."
            )
        seen = self._record.found
        images = self._handle.report.images if seen else []
        if not images or any(id(image.kept) not in seen for image in images):
            raise PruningError(
                "no statistics: the last call had no image, or one that was encoded for an earlier call. Call the "
                "model with an image first."
            )
        return [
            ProbedImage(image.row, image.modality, seen[id(image.kept)][1], text)
            for image, text in zip(images, self._reader.attention(images), strict=True)
        ]

    def run(self, **inputs: Any) -> list[ProbedImage]:
        """Run the model on a prompt, without gradients and only as far as the statistics need, and return its images.

        The forward stops after the last of `decoder_layers`, or before the first layer without any.
        """
        self._clear()
        layers, first_unneeded = self._adapter.layers, max(self._layers, default=-1) + 1
        hooks = [layer.register_forward_pre_hook(_stop) for layer in layers[first_unneeded : first_unneeded + 1]]
        try:
            with torch.no_grad():
                self.model(**{"use_cache": False, **inputs})
        except _StoppedEarly:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return self.images

    def remove(self) -> None:
        """Restore the model, and a patch that it had before. Forgets all statistics; calling it again has no effect."""
        while self._hooks:
            self._hooks.pop().remove()
        self._reader.remove()
        self._record.found.clear()
        suspended, self._suspended = self._suspended, None
        if self._handle.ended:  # by `unpatch`
            return
        self._handle.remove()
        if suspended is not None and not suspended.ended and Pruner.on(self.model) is None:
            suspended.install()  # unless a patch that replaced the probe is still there

    def _settings(self) -> str:
        return f"needs={sorted(self._record.wanted)}, decoder_layers={self._layers}"

    def _clear(self) -> None:
        self._record.found.clear()
        self._reader.clear()

    @dynamo_disabled
    def _before_core(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._reader.end()  # ends a forward that was interrupted
        kwargs = named_arguments(module, args, kwargs)
        masks = {modality.name: self._adapter.visual_mask(modality, kwargs) for modality in self._adapter.modalities}
        visual = {name: mask for name, mask in masks.items() if mask is not None}
        if visual and self.installed:
            self._clear()  # before the next forward's are recorded, so that two forwards' statistics never coexist
            if self._layers:
                self._reader.begin(kwargs, visual)

    @dynamo_disabled
    def _after_core(self, module: nn.Module, args: Any, output: Any) -> None:
        self._reader.end()


def probe(
    model: nn.Module,
    needs: Collection[str] = (),
    *,
    layer: int | None = None,
    decoder_layers: Iterable[int] = (),
    adapter: type[ModelAdapter] | None = None,
) -> Probe:
    """Record the statistics of every image that a loaded model gets, without pruning, until the probe's `remove` is
    called or its `with` block ends.

        with tokenprune.probe(model, needs={"vision_attention"}, layer=-2) as seen:
            out = model.generate(**inputs)                          # bitwise what the unpatched model generates
            seen.images[0].tokens.vision_attention.received()       # one float per visual token

        with tokenprune.probe(model, decoder_layers=[8]) as seen:
            (image,) = seen.run(**inputs)                           # stops after decoder layer 8
            image.text_attention[8].from_last()

    model: as for `patch`. An existing patch is suspended, and restored at the end unless its handle has
        removed it.
    needs: the statistics that `VisualTokens` should have, as strategies declare them; features and layout are always
        there.
    layer: the encoder layer that "vision_attention" comes from; None is the one whose output the model uses.
    decoder_layers: the decoder layers whose attention is read, counted from 0; implies the need "text_attention".
    adapter: an adapter class to use instead of the one registered for the model's class, as for `patch`.

    Only the statistics of the last forward with an image are kept, until the probe is removed; objects taken from
    `images` live as long as you hold them. Call the model from one thread at a time.

    Raises SettingError for an invalid setting and UnsupportedError for a model that cannot be patched or does not have
    a statistic; the model is then unchanged.
    """
    if isinstance(decoder_layers, str) or not isinstance(decoder_layers, Iterable):
        raise SettingError(f"probe: decoder_layers={decoder_layers!r} is not a list; write decoder_layers=[8].")
    numbers = tuple(decoder_layers)  # read once: an iterator is empty the second time
    wanted = frozenset({needs} if isinstance(needs, str) else needs) | ({"text_attention"} if numbers else set())
    model = unwrap_model(model)
    model_adapter = adapter_for(model, adapter)
    check_needs("probe", wanted, model_adapter.offers, model_adapter.description, model_adapter.why_not)
    if getattr(model, "tp_size", None) not in (None, 1):
        check_heads("probe", wanted, model_adapter)
    if numbers:
        model_adapter.decoder.check_masks()
    for name in sorted(wanted & {"kept_in_tower", "kept_before_tower", "shrunk"}):
        raise SettingError(
            f"probe: {name} is the outcome of pruning in or before the tower, and a probe prunes nothing."
        )
    if "text_attention" in wanted and not numbers:
        raise SettingError("probe: text_attention of which decoder layers? Write decoder_layers=[8], for instance.")
    if layer is not None and "vision_attention" not in wanted:
        raise SettingError('probe: layer is the encoder layer of vision_attention. Write needs={"vision_attention"}.')
    check_layer("probe", layer, "an encoder layer", -2)
    for number in numbers:
        if not is_integer(number) or number not in range(len(model_adapter.layers)):
            raise SettingError(
                f"probe: decoder_layers has {number!r}; those of this model are 0..{len(model_adapter.layers) - 1}."
            )
    if not is_tested(model_adapter):
        check_untested(model_adapter, drops=False, reads_text=bool(numbers))
    return Probe(model_adapter, RecordingStrategy(wanted=wanted - {"text_attention"}, layer=layer), numbers)


class _StoppedEarly(Exception):
    """Leaves a forward early, because the rest is not needed."""


@dynamo_disabled
def _stop(module: nn.Module, args: Any) -> None:
    raise _StoppedEarly
