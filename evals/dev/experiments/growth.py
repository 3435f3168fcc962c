"""CPU time and peak memory of a prefill as images grow: 1 to 576 tiles, and up to 8192 x 8192 pixels.

Runs on one thread, so that its CPU time is that of an otherwise idle machine."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import InternVLConfig, InternVLVisionConfig, Qwen2_5_VLConfig, Qwen2Config

import tokenprune
from tokenprune.evals.bench.inputs.build import build
from tokenprune.evals.bench.inputs.prompts import random_prompt
from tokenprune.evals.bench.inputs.rendered import rendered
from tokenprune.evals.bench.timing.memory import with_peak
from tokenprune.evals.dev.tables.speed.growth import tables
from tokenprune.evals.storage.provenance import versions
from tokenprune.strategies.parsing import parse

TILE = 224  # pixels; 16 x 16 patches, 8 x 8 visual tokens
PER_TILE = 64
#: The number of visual tokens to keep of an image of any size.
KEEP = 64
N_TEXT = 40
TILES = (1, 4, 16, 64, 256, 576)
SIDES = (1024, 2048, 4096, 8192)
#: Strategies for tiled images, and for images of any size. ENCODED is the vision tower alone.
ENCODED = "encoded only"
FOR_TILES = (ENCODED, "random", "fopru", "vispruner", "divprune", "visionzip", "flowcut", "tome")
FOR_SIDES = ("pixelprune+random", "pixelprune+divprune", "pixelprune+tome")


def tiled() -> Any:
    """InternVL's design with narrow layers: a CLS token, and 2 x 2 patches per visual token."""
    vision = InternVLVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=[TILE, TILE],
        patch_size=[14, 14],
    )
    return InternVLConfig(vision_config=vision, text_config=_narrow(), image_token_id=999, tie_word_embeddings=False)


def native() -> Any:
    """Qwen2.5-VL's design with narrow layers: every second layer attends to the whole image, the others to windows."""
    vision = {
        "depth": 4,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": 64,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [1, 3],
    }
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    text = {**_narrow().to_dict(), "rope_parameters": rope}
    return Qwen2_5_VLConfig(vision_config=vision, text_config=text, image_token_id=999, video_token_id=998)


def _narrow() -> Qwen2Config:
    return Qwen2Config(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=1000,
        max_position_embeddings=1 << 20,
    )


def tiles_prompt(model: Any, n_tiles: int) -> dict[str, Tensor]:
    """Return a prompt with an image of `n_tiles` tiles of noise between text."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 900, (1, n_tiles * PER_TILE + N_TEXT), generator=generator)
    ids[:, N_TEXT // 2 : N_TEXT // 2 + n_tiles * PER_TILE] = model.config.image_token_id
    pixels = torch.randn(n_tiles, 3, TILE, TILE, generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def measured(model: Any, inputs: dict[str, Tensor], name: str, rounds: int) -> dict[str, Any]:
    """Return a strategy's CPU seconds of a prefill, and its peak memory in addition to the model and the inputs."""
    n_visual = int((inputs["input_ids"] == model.config.image_token_id).sum())
    image = {key: value for key, value in inputs.items() if key in ("pixel_values", "image_grid_thw")}

    def encode() -> Any:
        return model.get_image_features(**image, return_dict=True)

    def prefill() -> Any:
        return model(**inputs, use_cache=True, logits_to_keep=1)

    row: dict[str, Any] = {"strategy": name, "visual_tokens": n_visual}
    if name == ENCODED:
        return row | _costs(encode, rounds)
    strategy = parse(name, keep_ratio=min(1.0, KEEP / n_visual))
    with tokenprune.patch(model, strategy) as handle:
        costs = _costs(prefill, rounds)
        (image_report,) = handle.report.images
    assert image_report.n_kept <= strategy.budget(n_visual)
    in_tower = [len(stage.kept) for stage in image_report.in_tower]
    return row | {"kept": image_report.n_kept, "in_tower": in_tower} | costs


@torch.inference_mode()
def _costs(call: Callable[[], Any], rounds: int) -> dict[str, Any]:
    _, peak = with_peak(call, torch.device("cpu"))
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        seconds.append(round(time.process_time() - start, 4))
    return {"seconds": statistics.median(seconds), "all_seconds": seconds, "peak_bytes": peak}


def rows_of(tiles: Sequence[int], sides: Sequence[int], rounds: int) -> Iterator[dict[str, Any]]:
    """Measure every strategy on images with more and more tiles, then on images with more and more pixels."""
    cpu = torch.device("cpu")
    if tiles:
        model = build("tiled", tiled(), torch.float32, cpu, "sdpa")
        for n_tiles in tiles:
            inputs = tiles_prompt(model, n_tiles)
            for name in FOR_TILES:
                yield {"tiles": n_tiles, "pixels": n_tiles * TILE**2} | measured(model, inputs, name, rounds)
    if sides:
        model = build("native", native(), torch.float32, cpu, "sdpa")
        for side in sides:
            inputs = random_prompt(model, 1, side=side, shown=rendered("page", side))
            for name in FOR_SIDES:
                yield {"side": side, "pixels": side**2} | measured(model, inputs, name, rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tokenprune.evals.dev.experiments.growth",
        description=f"Prune drawn images of more and more tiles, and of more and more pixels, to {KEEP} visual tokens, "
        "on narrow random models, and print CPU time and memory.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tiles", type=int, nargs="*", default=TILES, metavar="N")
    parser.add_argument("--sides", type=int, nargs="*", default=SIDES, metavar="PIXELS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/growth.jsonl"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    about = {"rounds": options.rounds, "device": "cpu", "versions": versions()}
    rows = []
    with options.output.open("w", encoding="utf-8") as output:
        for row in rows_of(options.tiles, options.sides, options.rounds):
            output.write(json.dumps(row | about) + "\n")
            output.flush()
            rows.append(row)
    print(tables(rows))


if __name__ == "__main__":
    main()
