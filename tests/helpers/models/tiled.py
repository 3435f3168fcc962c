"""Tiled images and videos of the families that have them, and their reports."""

from functools import cache
from typing import Any

import torch

import tokenprune
from helpers.families import FAMILIES

#: Family, and whether it is tested with videos.
IMAGES = [("llava-next", False), ("llava-onevision", False), ("llava-next-video", False), ("video-llava", False)]
VIDEOS = [("llava-onevision", True), ("llava-next-video", True), ("video-llava", True)]


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build()


def inputs_of(name: str, video: bool) -> dict[str, Any]:
    n = [1, 2]
    return FAMILIES[name].prompt([0, 0], videos_per_row=n) if video else FAMILIES[name].prompt(n)


def reported(name: str, inputs: dict[str, Any], strategy: tokenprune.Strategy) -> list[tokenprune.ImageReport]:
    model = model_of(name)
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        model(**inputs)
    return handle.report.images
