"""The exact oracle: dropping tokens under original position IDs equals masking them in a model that drops nothing.

`Family.oracle` recomputes a whole conversation in one uncached forward of the unpatched model, in which no query
attends to a dropped column.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import tokenprune
from helpers.contract.packed import masked_patches
from helpers.contract.shrunk import small_images
from helpers.contract.tower import close_in_tower
from helpers.families import FAMILIES
from helpers.families.base import IMAGE, VIDEO
from tokenprune.adapters import adapter_for
from tokenprune.adapters.towers.layers import RowLayers
from tokenprune.engine.pruner import Pruner

TOLERANCE = 2e-5  # float32; the tiny models give about 1e-6, and 1e-2 to 1 when something is wrong
ERRORS: list[float] = []  # those of every comparison since the list was cleared
PLACEHOLDERS = {"image": IMAGE, "video": VIDEO}


def placed(ids: Tensor, reports: Iterable[tokenprune.Report]) -> Iterator[tuple[int, Tensor, tokenprune.ImageReport]]:
    """Yield (row, columns, image) of every reported image. The reports' forwards saw the conversation's images in
    order. If videos have no placeholders of their own, they have those of images."""
    images = [image for report in reports for image in report.images]
    placeholders = PLACEHOLDERS
    if any(image.modality == "video" for image in images) and not (ids == VIDEO).any():
        placeholders = {"video": IMAGE}
    for modality, placeholder in placeholders.items():
        for row in range(len(ids)):
            columns = (ids[row] == placeholder).nonzero()[:, 0]
            for image in images:
                if (image.row, image.modality) == (row, modality):
                    yield row, columns[: image.n_visual], image
                    columns = columns[image.n_visual :]
            assert len(columns) == 0, f"the reports do not cover the {modality}s of row {row}"


def dropped_columns(ids: Tensor, reports: Iterable[tokenprune.Report]) -> Tensor:
    """Return (batch, length) bool: which columns of the whole conversation were dropped according to the reports."""
    dropped = torch.zeros_like(ids).bool()
    for row, columns, image in placed(ids, reports):
        dropped[row, columns] = True
        dropped[row, columns[image.kept]] = False
    return dropped


def oracle_logits(
    model: Any, ids: Tensor, real: Tensor, pixels: Tensor | None, dropped: Tensor, position_ids: Tensor | None = None
) -> Tensor:
    """Return `Family.oracle` of a LLaVA, given the tensors of the whole conversation."""
    assert Pruner.on(model) is None, "the oracle must not be pruned"
    inputs = {"input_ids": ids, "attention_mask": real, "pixel_values": pixels}
    return FAMILIES["llava-clip"].oracle(model, inputs, dropped, position_ids)


class Identity(torch.nn.Module):
    """Replaces a decoder layer, with all attributes that the language model may read."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        own = [name for name in vars(layer) if not name.startswith("_") and name != "training"]
        for name in {*own, "attention_type"}:
            if hasattr(layer, name):
                setattr(self, name, getattr(layer, name))

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden


def seen_by(report: tokenprune.Report, layer: int) -> tokenprune.Report:
    """Return the report as if the tokens that a decoder layer sees had been kept from the start."""
    left = [image.kept_at(layer) for image in report.images]
    images = zip(report.images, left, strict=True)
    return tokenprune.Report([replace(image, kept=kept, position_ids=kept, merged=None) for image, kept in images])


def sizes_at(image: tokenprune.ImageReport, layer: int) -> list[float]:
    """Return how many tokens each visual token of an image stands for in a decoder layer, 0 for dropped ones, counted
    one by one."""
    sizes = [1.0] * image.n_visual
    for step in [image, *(stage for stage in image.stages if stage.layer <= layer)]:
        kept, before = step.kept.tolist(), sizes
        sizes = [before[token] if token in kept else 0.0 for token in range(image.n_visual)]
        if step.merged is not None:
            weights: dict[int, dict[int, float]] = {}
            parts = step.merged.targets.tolist(), step.merged.sources.tolist(), step.merged.weights.tolist()
            for target, source, weight in zip(*parts, strict=True):
                to = weights.setdefault(source, {})
                to[kept[target]] = to.get(kept[target], 0.0) + weight  # several paths, in composed strategies
            for source, to in weights.items():
                for target, weight in to.items() if source not in kept else ():
                    sizes[target] += before[source] * weight / sum(to.values())
    return sizes


@contextmanager
def as_reported(
    model: Any, ids: Tensor, reports: list[tokenprune.Report], biased: Collection[tokenprune.Report] = ()
) -> Iterator[None]:
    """Within the block, make an oracle's forward follow the reports. Images are as small as reported. What was merged
    is, before the language model and on entry to its stages. Every decoder layer masks what earlier stages dropped,
    every encoder layer what was dropped before it or before the tower, and skipped layers are identities. For images of
    `biased` reports, every layer adds the log of the number of tokens that a kept one stands for to the logits of its
    key."""
    adapter = adapter_for(model)

    def merge(module: Any, args: Any, kwargs: Any) -> Any:
        def merged(along: Tensor) -> Tensor:
            along = along.clone()
            for row, columns, image in placed(ids, reports):
                if image.merged is not None:
                    along[row, columns[image.kept]] = image.merged.apply(along[row, columns], image.kept)
            return along

        given = {**kwargs, "inputs_embeds": merged(kwargs["inputs_embeds"])}
        late = kwargs.get("deepstack_features") or {}  # of Granite 4 Vision, whose embeddings are zeros
        for layer, features in late.items():
            spread = torch.zeros_like(kwargs["inputs_embeds"])
            spread[kwargs["vision_mask"][..., 0]] = features
            given["deepstack_features"] = {
                **given["deepstack_features"],
                layer: merged(spread)[kwargs["vision_mask"][..., 0]],
            }
        return args, given

    def close(number: int, module: Any, args: Any, kwargs: Any) -> Any:
        hidden, *rest = args
        hidden = hidden.clone()
        for row, columns, image in placed(ids, reports):
            for stage in image.stages:
                if stage.layer == number and stage.merged is not None:
                    hidden[row, columns[stage.kept]] = stage.merged.apply(hidden[row, columns], stage.kept)
        dropped = dropped_columns(ids, [seen_by(report, number) for report in reports])[:, None, None]
        itself = torch.eye(ids.shape[1]).bool() & dropped  # softmax needs one entry
        mask = kwargs["attention_mask"].masked_fill(dropped & ~itself, torch.finfo(torch.float32).min)
        return (hidden, *rest), {**kwargs, "attention_mask": mask.masked_fill(itself, 0.0)}

    def bias(number: int, module: Any, args: Any, kwargs: Any) -> Any:
        sizes = torch.ones(ids.shape)
        in_bias = {id(image) for report in biased for image in report.images}
        for row, columns, image in placed(ids, reports):
            if id(image) not in in_bias:
                continue
            sizes[row, columns] = torch.tensor(sizes_at(image, number)).clamp(min=1.0)  # dropped ones are masked
        return args, {**kwargs, "attention_mask": kwargs["attention_mask"] + sizes.log()[:, None, None]}

    images = [image for report in reports for image in report.images]
    in_tower = any(image.in_tower for image in images)
    in_row = in_tower and (adapter.tower.row is not None or isinstance(adapter.tower_layers, RowLayers))
    skipped = {layer for report in reports for layer in report.skipped}
    layers = list(adapter.layers)
    for number in skipped:
        adapter.layers[number] = Identity(layers[number])
    hooks = [adapter.language_model.register_forward_pre_hook(merge, with_kwargs=True)]
    if any(image.stages for report in reports for image in report.images):
        for number, layer in enumerate(adapter.layers):
            hooks.append(layer.register_forward_pre_hook(partial(close, number), with_kwargs=True))
    if biased:
        for number, layer in enumerate(adapter.layers):
            hooks.append(layer.register_forward_pre_hook(partial(bias, number), with_kwargs=True))
    if in_tower and not in_row:
        for number, layer in enumerate(adapter.tower.layers(adapter.vision_tower)):
            hooks += close_in_tower(adapter, [image for *_, image in placed(ids, reports)], number, layer)
    in_order = sorted(images, key=lambda image: image.modality)  # images before videos, as the tower is called
    try:
        small = small_images(adapter, in_order) if any(image.shrunk for image in images) else nullcontext()
        with small, masked_patches(adapter, in_order) if in_row else nullcontext():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for number in skipped:
            adapter.layers[number] = layers[number]


def of_left(states: Tensor, real: Tensor, left: Tensor) -> Tensor:
    """Return a row's states for the columns that are `left`. `states` ends with these and the padding after the row."""
    end = len(states) - int(real.flip(0).int().argmax())
    return states[end - len(left) : end]


def compact_ids(real: Tensor, dropped: Tensor) -> Tensor:
    """Return position IDs that count only what is left."""
    return ((real.bool() & ~dropped).long().cumsum(1) - 1).clamp(min=0)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    error = float((actual - expected).abs().max())
    ERRORS.append(error)
    assert error < TOLERANCE, f"logits differ by {error:.1e}"
