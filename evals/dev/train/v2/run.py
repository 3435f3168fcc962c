"""What a training run of version 2 holds, and the scenes that it draws."""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

import torch

from tokenprune.evals.dev.train.tower import load_tower, native_positions
from tokenprune.evals.dev.train.v2.assets import load_assets
from tokenprune.evals.dev.train.v2.draw import Scene, draw_scene
from tokenprune.evals.dev.train.v2.encode import STORED_SIDE, Encoder, Jitter
from tokenprune.evals.dev.train.v2.losses import Trainee
from tokenprune.evals.dev.train.v2.model import build_model, build_processor
from tokenprune.evals.dev.train.v2.pack import Packer, Seen

BLOCKS, IMAGE_SIZE = 8, STORED_SIDE * 14


class Run:
    """The model in training, its sources and its log."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        torch.manual_seed(args.seed)
        onnx_file = args.sources / "vit_s_focus.onnx"
        self.processor = build_processor()
        tower = load_tower(onnx_file, blocks=BLOCKS, image_size=IMAGE_SIZE)
        self.model = build_model(tower, self.processor, args.seed)
        self.tower = self.model.model.vision_tower
        self.encoder = Encoder(self.tower, native_positions(onnx_file))
        self.packer = Packer(self.processor)
        self.trainee = Trainee(self.model, self.packer.head, self.processor.tokenizer.convert_tokens_to_ids("00"))
        self.assets = load_assets(args.sources, held_out_things=False, held_out_backgrounds=False)
        self.jitter = Jitter()
        self.pool: dict[tuple[int, int], list[Seen]] = {}
        self.log = (args.output / "log.jsonl").open("a")

    def write(self, **row: Any) -> None:
        self.log.write(json.dumps({"at": time.strftime("%H:%M:%S"), **row}) + "\n")
        self.log.flush()

    def scenes(self, rng: random.Random, grid: tuple[int, int], number: int, most: int) -> list[Scene]:
        return [draw_scene(rng, self.assets, grid, most) for _ in range(number)]

    def draw(self, rng: random.Random, grid: tuple[int, int], number: int, most: int) -> list[Seen]:
        """Scenes of a grid, some of them new and the others from the last that were drawn for it."""
        pool = self.pool.setdefault(grid, [])
        scenes = self.scenes(rng, grid, max(round(self.args.fresh * number), number - len(pool)), most)
        with torch.no_grad():
            features = self.encoder([scene.pixels for scene in scenes], rng, self.jitter).bfloat16()
        new = [Seen(scene, one) for scene, one in zip(scenes, features, strict=True)]
        old = rng.sample(pool, number - len(new))
        self.pool[grid] = (pool + new)[-self.args.pool :]
        return new + old

    def weights(self) -> dict[str, Any]:
        return {"tower": self.tower.state_dict(), "trainee": self.trainee.state_dict()}

    def load_weights(self, saved: dict[str, Any]) -> None:
        self.tower.load_state_dict(saved["tower"])
        self.trainee.load_state_dict(saved["trainee"])
