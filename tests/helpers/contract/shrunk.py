"""An unpatched model that encodes smaller images."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import tokenprune
from tokenprune.adapters import ModelAdapter
from tokenprune.adapters.conventions import ANY_SIZE, bind_arguments, interpolates_if_told
from tokenprune.encoded import Modality


@contextmanager
def any_size(model: Any, adapter: ModelAdapter) -> Iterator[None]:
    """Within the block, the vision tower takes images of any size, as far as it interpolates."""
    towers = [tower for tower in adapter.vision_towers if interpolates_if_told(tower)]
    hooks = [tower.register_forward_pre_hook(_told, with_kwargs=True) for tower in towers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _told(module: Any, args: Any, kwargs: Any) -> Any:
    return args, {**kwargs, **ANY_SIZE}


@contextmanager
def small_images(adapter: ModelAdapter, images: list[tokenprune.ImageReport]) -> Iterator[None]:
    """Within the block, images are encoded as small as reported, and their features are put where the report says;
    zeros are elsewhere.

    images: every image, and then every video, in the order in which the model gets them.
    """
    busy: list[Modality] = []
    with any_size(adapter.model, adapter), ExitStack() as stack:
        for modality in adapter.modalities:
            mine = [image for image in images if image.modality == modality.name]
            original = getattr(adapter.core, modality.function)

            encode = partial(_encoded_small, adapter, modality, mine, busy, original)
            stack.enter_context(patch.object(adapter.core, modality.function, encode))
        yield


def _encoded_small(
    adapter: ModelAdapter,
    modality: Modality,
    images: list[Any],
    busy: list[Any],
    original: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    if busy:  # videos may be encoded by the function for images
        return original(*args, **kwargs)
    budgets = [image.n_visual if image.shrunk is None else len(image.shrunk.kept) for image in images]
    busy.append(modality)
    try:
        output = original(**adapter.shrink(modality, bind_arguments(original, args, kwargs), budgets).arguments)
    finally:
        busy.clear()
    output.pooler_output = _spread(output.pooler_output, images)
    if (layers := getattr(output, "deepstack_features", None)) is not None:
        output.deepstack_features = [_spread(layer, images) for layer in layers]
    return output


def _spread(features: Iterable[Tensor], images: list[Any]) -> Tensor | list[Tensor]:
    found = []
    for small, image in zip(features, images, strict=True):
        found.append(torch.zeros(image.n_visual, small.shape[1]))
        found[-1][slice(None) if image.shrunk is None else image.shrunk.kept] = small
    return torch.stack(found) if isinstance(features, Tensor) else found
