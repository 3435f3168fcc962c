"""Records what the vision tower computes for each image while the model encodes it.

FeatureFunction        one call of `get_image_features`: begins and ends an Encoding
  shrink                 its arguments for smaller images, if the strategy asks for these
  before_tower           the arguments of a call of the tower
  before_attention       the arguments of the attention that the strategy reads
  after_capture          the outputs of its query and key projections
  after_tower            one entry per tile
  before_projector       what a projector gets that maps every token by itself
-> one EncodedImage per image, with its layout and the statistics that the strategy declared
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import (
    ANY_SIZE,
    bind_arguments,
    interpolates_if_told,
    named_arguments,
    unwrap_model,
)
from tokenprune.adapters.towers.layers import early_layer, tokenwise_projector
from tokenprune.encoded import NOT_RECORDED, RECORD_ATTRIBUTE, EncodedImage, Modality
from tokenprune.engine.call import CallContext, Encoding
from tokenprune.engine.failures import patch_removed_during_call
from tokenprune.engine.patch import MethodOverride, Register, check_not_traced, dynamo_disabled
from tokenprune.engine.shrinking import Shrinking
from tokenprune.errors import PruningError
from tokenprune.strategy import Strategy
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.tower import KeptInTower

ATTENTION = {"vision_attention", "early_attention"}


class FeatureFunction(MethodOverride):
    """Records the base model's method that encodes images; in some models, also the one for videos."""

    def __init__(self, core: nn.Module, function: str, recorder: VisionRecorder) -> None:
        super().__init__(core, function)
        self._function, self._recorder = function, recorder

    @property
    def __signature__(self) -> inspect.Signature:  # `generate` reads which arguments to pass
        return inspect.signature(self.original)

    def override(self, *args: Any, **kwargs: Any) -> Any:
        begun, original, wanted = self._recorder.begin(), self.original, kwargs.get("return_dict")
        as_dict = getattr(self._module.config, "return_dict", True) if wanted is None else wanted
        dict_kwargs = kwargs if as_dict else {**kwargs, "return_dict": True}  # a tuple could not hold the record
        if not begun:  # videos may be encoded by the function for images, whose output they return
            return original(*args, **(dict_kwargs if wanted is None else kwargs))
        kwargs = dict_kwargs
        try:
            shrinking = None
            if self._recorder.shrinks:
                shrinking = self._recorder.shrink(self._function, bind_arguments(original, args, kwargs))
                args, kwargs = (), shrinking.arguments
            output = original(*args, **kwargs)
            if self._removed:
                raise patch_removed_during_call()
            self._recorder.record(self._function, bind_arguments(original, args, kwargs), output, shrinking)
        finally:
            self._recorder.end()
        return output if as_dict else output.to_tuple()


class VisionRecorder:
    """Collects the statistics that the strategy declares, and nothing else.

    modules: the modules that are read, by name, as they were when the model was patched.
    shrinks: whether smaller images are encoded.
    """

    def __init__(self, adapter: ModelAdapter, strategy: Strategy, context: CallContext) -> None:
        self.adapter, self.strategy, self._context = adapter, strategy, context
        self._modalities = adapter.modalities
        self.statistics = (strategy.needs & adapter.offers) - NOT_RECORDED
        self.shrinks = "shrunk" in strategy.needs
        self.modules: dict[str, nn.Module] = {}
        self._captures: frozenset[str] = frozenset()
        self._scale = adapter.tower.scale(adapter.vision_tower) if "vision_attention" in self.statistics else 1.0

    def register(self, register: Register) -> list[nn.Module]:
        """Register the hooks; return the modules that are read."""
        adapter, captured = self.adapter, []
        for tower in adapter.vision_towers:
            if self.shrinks and interpolates_if_told(tower):
                register(tower.register_forward_pre_hook(self.before_any_size, with_kwargs=True))
            register(tower.register_forward_pre_hook(self.before_tower, with_kwargs=True))
            register((adapter.resampler or tower).register_forward_hook(self.after_tower))
        if "vision_attention" in self.statistics:
            captured += self._capture(register, self.strategy.attention_layer, "vision_attention")
        if "early_attention" in self.statistics:
            captured += self._capture(register, early_layer(adapter, self.strategy.early_layer), "early_attention")
        if "late_features" in self.statistics:
            for tower in adapter.vision_towers:
                for layer in adapter.tower.late_layers(tower):
                    register(layer.register_forward_hook(self.after_layer))
                    captured.append(layer)
        if "tower_features" in self.statistics:
            tokenwise = tokenwise_projector(adapter)
            assert tokenwise is not None
            projector = tokenwise()
            register(projector.register_forward_pre_hook(self.before_projector))
            captured.append(projector)
        for function in dict.fromkeys(modality.function for modality in adapter.modalities):
            register(FeatureFunction(unwrap_model(adapter.core), function, self).install())
        return captured

    def _capture(self, register: Register, layer: int | None, statistic: str) -> list[nn.Module]:
        modules = []
        for point in self.adapter.capture_points(layer):
            hook = partial(self.before_attention, statistic)
            register(point.attention.register_forward_pre_hook(hook, with_kwargs=True))
            for name, module in point.outputs.items():
                register(module.register_forward_hook(partial(self.after_capture, statistic, name)))
            self._captures = frozenset(point.outputs)
            modules += [point.attention, *point.outputs.values()]
        return modules

    # The feature function.

    @dynamo_disabled
    def begin(self) -> bool:
        """Start recording; return False for a nested call.

        Raises PruningError if modules that are read were replaced since the model was patched.
        """
        if self._context.encodings.now is not None:
            return False
        check_not_traced()
        known: dict[str, Any] = {"": self.adapter.model}
        if any(_submodule(name, known) is not module for name, module in self.modules.items()):
            raise PruningError(
                "modules that the strategy reads were replaced after patch(). Call patch() again, after "
                "get_peft_model, merge_and_unload and the like."
            )
        self._context.encodings.now = Encoding(self.statistics)
        return True

    @dynamo_disabled
    def shrink(self, function: str, arguments: dict[str, Any]) -> Shrinking:
        """Smaller versions of the images in a call of a feature function."""
        return Shrinking.of(self.strategy, self.adapter, self._modality(function), arguments)

    @dynamo_disabled
    def record(self, function: str, arguments: dict[str, Any], output: Any, shrinking: Shrinking | None) -> None:
        """Attach what was recorded to the output of the feature function."""
        modality = self._modality(function)
        images = getattr(output, RECORD_ATTRIBUTE, None)  # already recorded, if somebody caches features
        if images is None:
            images = self._images(modality, arguments, output)
            if shrinking is not None:
                images = shrinking.recorded(images)
                shrinking.spread(output)
            if not isinstance(output, (list, tuple)):  # these take no attributes, and `generate` does not pass them on
                setattr(output, RECORD_ATTRIBUTE, images)
        self._context.encodings.modalities.append(modality.name)
        if modality.name in self._context.encodings.images:
            self._context.encodings.images[modality.name] += images

    @dynamo_disabled
    def end(self) -> None:
        self._context.encodings.now = None

    # The vision tower.

    @dynamo_disabled
    def before_tower(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if (encoding := self._context.encodings.now) is not None:
            encoding.tower_call = {"tower": named_arguments(module, args, kwargs), "states": []}

    @dynamo_disabled
    def before_any_size(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return None if self._context.encodings.now is None else (args, kwargs | ANY_SIZE)

    @dynamo_disabled
    def before_attention(self, statistic: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if (encoding := self._context.encodings.now) is not None:
            encoding.tower_call.setdefault(statistic, {}).update({"attention": kwargs, "attention_module": module})

    @dynamo_disabled
    def after_capture(self, statistic: str, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        if (encoding := self._context.encodings.now) is not None:
            encoding.tower_call.setdefault(statistic, {})[name] = output.detach()

    @dynamo_disabled
    def after_layer(self, module: nn.Module, args: Any, output: Any) -> None:
        if (encoding := self._context.encodings.now) is not None:
            encoding.tower_call["states"].append((output[0] if isinstance(output, tuple) else output).detach())

    @dynamo_disabled
    def after_tower(self, module: nn.Module, args: Any, output: Any) -> None:
        if (encoding := self._context.encodings.now) is None:
            return
        call, encoding.tower_call = encoding.tower_call, {}
        if (pruned := self._context.encodings.tower) is not None:
            encoding.before += pruned.selections
        for name in {"pixels", "colors"} & encoding.tiles.keys():
            encoding.tiles[name] += self.adapter.tile_pixels(call["tower"])
        if "late_features" in encoding.tiles:
            mean = torch.stack(call["states"]).float().mean(0)
            encoding.tiles["late_features"] += mean[:, self.adapter.tower.n_prefix :]
        if "kept_in_tower" in encoding.tiles:
            assert pruned is not None
            encoding.tiles["kept_in_tower"] += pruned.outcomes()
        for name in ATTENTION & encoding.tiles.keys():
            seen = {"tower": call["tower"], **call.get(name, {})}
            if not self._captures <= seen.keys():
                raise PruningError(
                    f"{type(self.adapter).__name__}.capture_points names modules that the vision tower does not call, "
                    f"so the attention that the strategy needs is unknown. See adapters/README.md."
                )
            seen = seen if pruned is None else pruned.whole_call(seen)
            heads, real = self.adapter.tile_heads(seen), None if pruned is None else pruned.real()
            encoding.tiles[name] += zip(*heads, *([] if real is None else [real]), strict=True)

    @dynamo_disabled
    def before_projector(self, module: nn.Module, args: Any) -> None:
        if (encoding := self._context.encodings.now) is not None:
            encoding.tiles["tower_features"] += args[0].detach()

    # From tiles to images.

    def _modality(self, function: str) -> Modality:
        """What a call of a feature function encodes: the first of its modalities with no image encoded yet."""
        modalities = [modality for modality in self._modalities if modality.function == function]
        return next(
            (modality for modality in modalities if self._context.encodings.images.get(modality.name) == []),
            modalities[0],
        )

    def _images(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[EncodedImage]:
        """The images of this encoding."""
        assert self._context.encodings.now is not None
        tiles = self._context.encodings.now.tiles
        images, start, layouts = [], 0, self.adapter.layouts(modality, arguments, output)
        before = iter(self._context.encodings.now.before)
        if "pixels" in tiles and not self.adapter.vision_towers:
            tiles["pixels"] += self.adapter.image_pixels(modality, arguments, layouts)
        n_tiles = sum(layout.n_tiles for layout in layouts)
        for name in {"tower_features", "late_features"} & tiles.keys():
            if len(tiles[name]) < n_tiles:  # the patches of all images in one row
                tiles[name] = [*torch.cat(tiles[name]).split([layout.n_visual for layout in layouts])]
        if any(len(values) != n_tiles for values in tiles.values()):
            raise PruningError(
                f"{type(self.adapter).__name__} counts {n_tiles} tiles, and the vision tower was given "
                f"{max(map(len, tiles.values()))}. Remove the patch, and report it with your transformers version."
            )
        if n_tiles > len(layouts) and self.adapter.vision_towers:
            tiles = {name: self.adapter.by_image(name, values, layouts) for name, values in tiles.items()}
        for layout in layouts:
            stop = start + layout.n_tiles
            statistics = {name: self._statistic(name, values[start:stop], layout) for name, values in tiles.items()}
            if "kept_before_tower" in self.statistics:
                statistics["kept_before_tower"] = KeptInTower.before(before, layout.n_visual)
            images.append(EncodedImage(layout, statistics, recorded_for=self.strategy))
            start = stop
        return images

    def _statistic(self, name: str, tiles: list[Any], layout: Layout) -> Any:
        if name == "kept_in_tower":
            return KeptInTower.concat(tiles)
        if name in ("tower_features", "late_features"):
            return torch.stack(tiles)
        if name == "pixels":
            return tuple(tile.detach() for tile in tiles)  # no copy: the image may be held for long
        if name == "colors":
            return tuple(self.adapter.tower.colors(torch.stack(tiles).detach()))
        queries, keys, *real = (torch.stack(part) for part in zip(*tiles, strict=True))
        return VisionAttention(queries, keys, self._scale, self.adapter.tower.n_prefix, layout, *real)


def _submodule(name: str, known: dict[str, Any]) -> Any:
    """The module of that name; None if there is none. `known`: modules found so far, and the model itself as ""."""
    if name not in known:
        parent, _, last = name.rpartition(".")
        known[name] = getattr(_submodule(parent, known), last, None)
    return known[name]
