"""Measure how many trees of aerial photographs pruning keeps."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenprune import Grid, Selection, probe
from tokenprune.encoded import EncodedImage
from tokenprune.engine.select import checked_selection
from tokenprune.evals.dev.experiments.aerial import draw
from tokenprune.evals.dev.experiments.aerial.photographs import Photograph, photographs
from tokenprune.evals.dev.tables.accuracy.aerial import table
from tokenprune.evals.models.bundled import MODEL
from tokenprune.evals.models.loading import load_model, public_name
from tokenprune.evals.stats import bootstrap_interval
from tokenprune.evals.storage.provenance import versions
from tokenprune.strategy import Strategy
from tokenprune.tokens import VisualTokens

#: The strategies of the table, by their names in it: those of the figure, and one more.
COMPARED: dict[str, Strategy] = {**draw.PANELS, "Grid": Grid(budget_per="tile")}
KEEPS = (4, 8, 24)
BATCH = 16


@dataclass(frozen=True)
class Share:
    """A share over all tiles, with its 95 % interval over tiles."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, part: np.ndarray, whole: np.ndarray) -> Share:
        """Divide counts per tile. Tiles are resampled, because the tokens of a tile are not independent."""
        interval = bootstrap_interval((part, whole), lambda a, b, axis: a.sum(axis) / np.maximum(b.sum(axis), 1))
        return cls(float(part.sum() / whole.sum()), *interval)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Survival:
    """The shares of tokens and trees that one strategy keeps at one budget.

    trees: of the trees with any visual tokens, those of which at least one is kept. in_cluster: tokens that are kept or
    merged into a kept one.
    """

    strategy: str
    settings: dict[str, Any]
    keep: int
    tree_tokens: Share
    background_tokens: Share
    trees: Share
    tree_tokens_in_cluster: Share
    background_tokens_in_cluster: Share


def encode(model: Any, processor: Any, tiles: Sequence[Any], layer: int) -> VisualTokens:
    """Encode a photograph's tiles as one image: the raster of one tile after the other."""
    needs = frozenset().union(*(strategy.needs for strategy in COMPARED.values()))
    parts: list[VisualTokens] = []
    with probe(model, needs, layer=layer) as seen:
        for start in range(0, len(tiles), BATCH):
            batch = list(tiles[start : start + BATCH])
            inputs = processor(images=batch, text=[processor.image_token] * len(batch), return_tensors="pt")
            parts += [image.tokens for image in seen.run(**inputs.to(model.device, model.dtype))]
    whole = EncodedImage.concat([EncodedImage(part.layout, part.statistics) for part in parts])
    return VisualTokens(torch.cat([part.features for part in parts]), whole.layout, 0, whole.statistics)


def counted(photograph: Photograph, inside: np.ndarray, selection: Selection) -> dict[str, np.ndarray]:
    """Count the tokens and trees of each tile, and those that are left."""
    tiles, patches, _ = inside.shape
    kept = np.zeros(tiles * patches, dtype=bool)
    kept[selection.kept.cpu().numpy()] = True
    in_cluster = kept.copy()
    if selection.merged is not None:
        in_cluster[selection.merged.sources.cpu().numpy()] = True
    kept, in_cluster = kept.reshape(tiles, patches), in_cluster.reshape(tiles, patches)
    tree = inside.any(2)
    present = inside.any((0, 1))
    # A tree on a border is counted in the tile that has most of its tokens.
    home = inside.sum(1).argmax(0)
    hit = (inside & kept[..., None]).any((0, 1))
    return {
        "tree_tokens": (tree & kept).sum(1),
        "tree_tokens_of": tree.sum(1),
        "background_tokens": (~tree & kept).sum(1),
        "background_tokens_of": (~tree).sum(1),
        "trees": np.bincount(home[present & hit], minlength=tiles),
        "trees_of": np.bincount(home[present], minlength=tiles),
        "tree_tokens_in_cluster": (tree & in_cluster).sum(1),
        "background_tokens_in_cluster": (~tree & in_cluster).sum(1),
    }


def survivals(scenes: Sequence[tuple[Photograph, VisualTokens]], patch_size: int) -> Iterator[Survival]:
    """Measure every strategy at every budget, over all photographs."""
    insides = [photograph.inside(patch_size) for photograph, _ in scenes]
    for keep in KEEPS:
        for name, strategy in COMPARED.items():
            counts = []
            for (photograph, tokens), inside in zip(scenes, insides, strict=True):
                asked = replace(strategy, keep_ratio=None, keep=keep * len(inside))
                counts.append(counted(photograph, inside, checked_selection(asked, tokens)))
            total = {key: np.concatenate([count[key] for count in counts]) for key in counts[0]}
            shares = {
                key: Share.of(total[key], total[key.removesuffix("_in_cluster") + "_of"])
                for key in total
                if not key.endswith("_of")
            }
            settings = asdict(replace(strategy, keep_ratio=None, keep=keep))
            yield Survival(name, settings, keep, **shares)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    model, processor = load_model(options.model)
    vision = model.config.vision_config
    scenes: list[tuple[Photograph, VisualTokens]] = []
    for photograph in photographs(options.downloads, vision.image_size):
        scenes.append((photograph, encode(model, processor, photograph.cut(), options.layer)))
    insides = [photograph.inside(vision.patch_size) for photograph, _ in scenes]
    about = {
        "model": public_name(options.model),
        "layer": options.layer,
        "n_tiles": sum(map(len, insides)),
        "tokens_per_tile": insides[0].shape[1],
        "n_trees": sum(int(inside.any((0, 1)).sum()) for inside in insides),
        "n_tree_tokens": sum(int(inside.any(2).sum()) for inside in insides),
        "versions": versions(),
    }
    rows = []
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", encoding="utf-8") as output:
        for row in survivals(scenes, vision.patch_size):
            rows.append(row)
            output.write(json.dumps(asdict(row) | about) + "\n")
    print(table([asdict(row) for row in rows]))
    print(
        f"{about['n_trees']} trees on {about['n_tiles']} tiles of {about['tokens_per_tile']} visual tokens, "
        f"{about['n_tree_tokens']} of them on trees. In per cent, with 95 % interval over tiles."
    )
    if options.image is not None:
        draw.draw(*scenes[0], vision.patch_size, options.image)
        print(f"Drawn in {options.image}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tokenprune.evals.dev.experiments.aerial.measure",
        description="Cut aerial photographs with a box around every tree into tiles, prune every tile to a few visual "
        "tokens, and print which share of those on trees, and of the others, is left. Downloads 21 MB.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default=str(MODEL), help="a LLaVA 1.5: a folder or a Hugging Face name")
    parser.add_argument("--layer", type=int, default=-2, help="the encoder layer whose attention is used")
    parser.add_argument("--downloads", type=Path, default=Path("runs/downloads"), help="where the package is kept")
    parser.add_argument("--output", type=Path, default=Path("runs/aerial.jsonl"), help="one JSON line for each row")
    parser.add_argument("--image", type=Path, help="also draw what is left of a part of the first photograph")
    return parser


if __name__ == "__main__":
    main()
