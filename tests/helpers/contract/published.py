"""Models at the shapes of published checkpoints, and prompts with the token counts of their real processors."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

import tokenprune
from helpers.contract.oracle import as_reported, dropped_columns
from helpers.families import FAMILIES, Family
from helpers.families.base import END, IMAGE
from tokenprune import FoPru, Random

CONFIGS = Path(__file__).parents[2] / "adapters" / "published" / "configs"
#: The markers before a run of placeholders, followed by the number of placeholders.
Placeholders = list[int]


def as_published(name: str, checkpoint: str) -> Family:
    """Return a family with the settings of a published checkpoint."""
    family = type(FAMILIES[name])(name)
    family.settings |= json.loads((CONFIGS / f"{checkpoint}.json").read_text())
    return family


def build(family: Any, attention: str = "eager") -> Any:
    """Return a model of a family, with smaller weights than in tiny models because hidden states are wide."""
    torch.manual_seed(0)
    model = family.build(attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    family.unpatched = model  # the oracle runs only after the patch is removed, so it can use the same model
    return model


def image_of(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator(torch.get_default_device()).manual_seed(1)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def n_placeholders(processor: Any, inputs: Any, **settings: Any) -> int:
    """Return the number of placeholders that a processor class writes for the first image of `inputs`."""
    written = processor.replace_image_token(SimpleNamespace(image_token="x", **settings), inputs, 0)
    return written.count("x")


def prompt_of(family: Any, inputs: dict[str, Any], runs: list[Placeholders]) -> dict[str, Any]:
    """Return a prompt of text, the placeholders and markers of an image, and text."""
    image = [token for run in runs for token in (*run[:-1], *[IMAGE] * run[-1])]
    ids = torch.tensor([[5, 6, *image, END, 7, 8, 9]])
    return {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids), **family.token_types(ids)}


def assert_pruned_is_masked(
    family: Any,
    model: Any,
    inputs: dict[str, Any],
    n_visual: int,
    n_images: int = 1,
    strategies: tuple[tokenprune.Strategy, ...] = (Random(keep_ratio=0.25), FoPru(keep_ratio=0.25)),
) -> list[tokenprune.Report]:
    """Check that a pruned prompt has the oracle's logits, relative to the largest one. Returns the reports."""
    reports = []
    for strategy in strategies:
        with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
            logits = model(**inputs).logits
        dropped = dropped_columns(inputs["input_ids"], [handle.report])
        with as_reported(model, inputs["input_ids"], [handle.report]):
            expected = family.oracle(model, inputs, dropped)
        assert handle.report.n_visual == n_visual
        assert len(handle.report.images) == n_images
        error, scale = float((logits[0] - expected[0, ~dropped[0]]).abs().max()), float(expected.abs().max())
        assert error < 2e-5 * max(1.0, scale), f"logits of up to {scale:.1f} differ by {error:.1e}"
        reports.append(handle.report)
    return reports
