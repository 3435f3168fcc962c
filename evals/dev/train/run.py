"""The model and the log of a training run."""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

import torch
from torch import Tensor

from tokenprune.evals.dev.train.batches.encode import Encoder, Jitter
from tokenprune.evals.dev.train.batches.pack import Packer
from tokenprune.evals.dev.train.losses import Trainee
from tokenprune.evals.dev.train.scenes.draw import Scene
from tokenprune.evals.dev.train.start.grow import grow
from tokenprune.evals.dev.train.start.model import build_like, build_processor
from tokenprune.evals.dev.train.start.tower import tower_and_positions

LOG = "log.jsonl"


class Run:
    """The model in training, and its log.

    saved: the checkpoint that will be loaded. A checkpoint of stage two gives the shape of the model, so nothing is
    grown.
    """

    def __init__(self, args: argparse.Namespace, saved: dict[str, Any] | None = None):
        self.args, self.device, self.began = args, torch.device(args.device), time.time()
        torch.manual_seed(args.seed)
        self.processor = build_processor()
        tower, positions = tower_and_positions(args.sources)
        if saved is not None and saved["stage"] == 2:
            self.model = build_like(saved["trainee"], tower, self.processor)
        else:
            self.model = grow(args.version_1, self.processor, args.seed)
        self.model.to(self.device)  # pyright: ignore[reportArgumentType]
        self.tower = self.model.model.vision_tower
        self.positions = positions.to(self.device)
        self.encoder = Encoder(self.tower, self.positions)
        self.packer = Packer(self.processor)
        first_number = self.processor.tokenizer.convert_tokens_to_ids("00")
        self.trainee = Trainee(self.model, self.packer.head, first_number).to(self.device)
        self.jitter = Jitter()
        self.log = (args.output / LOG).open("a")

    def encode(self, scenes: list[Scene], rng: random.Random) -> Tensor:
        """Return the features of a frozen tower."""
        with torch.no_grad():
            return self.encoder([scene.pixels for scene in scenes], rng, self.jitter).bfloat16()

    def write(self, **row: Any) -> None:
        rounded = {name: round(v.item(), 4) if isinstance(v, Tensor) else v for name, v in row.items()}
        self.log.write(json.dumps({"at": time.strftime("%H:%M:%S"), **rounded}) + "\n")
        self.log.flush()

    def time_is_up(self) -> bool:
        return self.args.minutes is not None and time.time() - self.began > 60 * self.args.minutes

    def weights(self) -> dict[str, Any]:
        return {"tower": self.tower.state_dict(), "trainee": self.trainee.state_dict()}

    def load_weights(self, saved: dict[str, Any]) -> None:
        self.tower.load_state_dict(saved["tower"])
        self.trainee.load_state_dict(saved["trainee"])
