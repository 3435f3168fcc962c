"""Turn scenes into training batches: one picture, followed by many independent questions in one sequence."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Dinov2Model, LlavaProcessor

from tokenprune.evals.dev.train.start.dinov2 import NATIVE_SIDE, position_window
from tokenprune.evals.dev.train.version_1.assets import Assets, nouns
from tokenprune.evals.dev.train.version_1.questions import Question, rec_questions, vqa_questions
from tokenprune.evals.dev.train.version_1.scenes import GRID, Scene, draw_scene

VISUAL = GRID * GRID
TEXT_LENGTH = 200  # question tokens after one picture; fixed, so that all batches have the same shape


@dataclass(frozen=True)
class Batch:
    """`target` is -100 where nothing is predicted; `about` is the thing that the row's answer is read from."""

    features: Float[Tensor, "b visual d"]
    text_ids: Int[Tensor, "b text"]
    target: Int[Tensor, "b text"]
    position_ids: Int[Tensor, "b all"]
    mask: Bool[Tensor, "b 1 all all"]
    about: Int[Tensor, "b text"]
    owner: Int[Tensor, "b visual"]
    patch_noun: Int[Tensor, "b visual"]
    kind: list[list[str | None]]


@dataclass
class SeenScene:
    """A scene and its visual features, computed once."""

    scene: Scene
    features: Float[Tensor, "visual d"]


class SceneSource:
    """Draws scenes, runs the frozen tower on them, and reuses each a few times with new questions.

    The tower's position embeddings are a 16x16 window of the native 37x37 grid, up to `jitter` patches off its centre
    in both directions, drawn anew for every scene. A patch feature then says what is there but only roughly where, and
    for the exact place the language model needs its position IDs, as a LLaVA does. At inference the window is central.
    """

    def __init__(
        self, assets: Assets, tower: Dinov2Model, positions: Tensor, processor: LlavaProcessor, seed: int, jitter: int
    ):
        self.assets, self.tower, self.positions, self.jitter = assets, tower, positions, jitter
        self.rng = random.Random(seed)
        self.mean = torch.tensor(processor.image_processor.image_mean).view(3, 1, 1)
        self.std = torch.tensor(processor.image_processor.image_std).view(3, 1, 1)
        self.pool: list[SeenScene] = []

    def draw(self, count: int, *, most_things: int, pool_size: int, fresh: int) -> list[SeenScene]:
        """Return `count` scenes, `fresh` of them new, the others from the last `pool_size` drawn."""
        scenes = self.scenes(max(fresh, count - len(self.pool)), most_things)
        with torch.no_grad():
            features = self.encode(scenes).to(torch.bfloat16)
        new = [SeenScene(scene, f) for scene, f in zip(scenes, features, strict=True)]
        old = self.rng.sample(self.pool, min(count - len(new), len(self.pool)))
        self.pool = (self.pool + new)[-pool_size:] if pool_size else []
        return new + old

    def scenes(self, count: int, most_things: int) -> list[Scene]:
        """Draw `count` new scenes with one to `most_things` things."""
        scenes: list[Scene] = []
        while len(scenes) < count:
            things = self.rng.randint(1, most_things)
            scene = draw_scene(self.rng, self.assets.cutouts, self.assets.backgrounds, things)
            if scene.things:
                scenes.append(scene)
        return scenes

    def encode(self, scenes: list[Scene], frozen: int = 0) -> Float[Tensor, "b visual d"]:
        """Return visual features. No gradient reaches the first `frozen` blocks."""
        pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes])).permute(0, 3, 1, 2)
        pixels = (pixels.float() / 255 - self.mean) / self.std
        center = (NATIVE_SIDE - GRID) // 2
        corners = [[center + self.rng.randint(-self.jitter, self.jitter) for _ in ("top", "left")] for _ in scenes]
        window = torch.cat([position_window(self.positions, GRID, top, left) for top, left in corners])
        with torch.autocast("cpu", torch.bfloat16):
            patches = self.tower.embeddings.patch_embeddings(pixels)
            cls = self.tower.embeddings.cls_token.expand(len(scenes), -1, -1)
            hidden = torch.cat([cls, patches.float()], dim=1) + window
            for index, block in enumerate(self.tower.encoder.layer):
                hidden = block(hidden.detach() if index == frozen else hidden)
        return hidden[:, 1:].float()


class Packer:
    """Packs questions after a picture. Each sees only the picture and itself, at the position IDs it has when alone."""

    def __init__(self, processor: LlavaProcessor, seed: int):
        self.rng = random.Random(seed)
        self.tokenizer = processor.tokenizer
        self.nouns = nouns()
        self.noun_ids = dict(zip(self.nouns, self.tokenizer.convert_tokens_to_ids(self.nouns), strict=True))
        self.head = self.tokenizer("USER:").input_ids  # <s> user :
        self.eos = self.tokenizer.eos_token_id
        self.cached: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        if text not in self.cached:
            self.cached[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self.cached[text]

    def questions(self, scene: Scene) -> list[Question]:
        """Return REC and VQA questions alternately, each kind shuffled."""
        rec = rec_questions(scene)
        vqa = vqa_questions(self.rng, scene, self.nouns) + vqa_questions(self.rng, scene, self.nouns)
        self.rng.shuffle(rec)
        self.rng.shuffle(vqa)
        mixed = [q for pair in zip(rec, vqa, strict=False) for q in pair]
        return mixed + rec[len(vqa) :] + vqa[len(rec) :]

    def pack(self, seen: list[SeenScene]) -> Batch:
        start = len(self.head) + VISUAL
        size = start + TEXT_LENGTH
        b = len(seen)
        text = torch.full((b, TEXT_LENGTH), self.tokenizer.pad_token_id)
        target = torch.full((b, TEXT_LENGTH), -100)
        about = torch.full((b, TEXT_LENGTH), -1)
        position = torch.arange(size).repeat(b, 1)
        mask = torch.zeros(b, 1, size, size, dtype=torch.bool)
        mask[:, :, :, :start] = torch.ones(size, start, dtype=torch.bool).tril()
        mask |= torch.eye(size, dtype=torch.bool)  # padding rows see themselves, so that no row is empty
        kinds: list[list[str | None]] = []
        patch_noun = torch.full((b, VISUAL), -100)
        for row, one in enumerate(seen):
            at = 0
            kind: list[str | None] = [None] * TEXT_LENGTH
            for question in self.questions(one.scene):
                prompt = self.ids(f"{question.text} ASSISTANT:")
                answer = [*self.ids(question.answer), self.eos]
                length = len(prompt) + len(answer) - 1  # the last token is only predicted, never an input
                if at + length > TEXT_LENGTH:
                    continue
                text[row, at : at + length] = torch.tensor([*prompt, *answer[:-1]])
                first = at + len(prompt) - 1
                target[row, first : at + length] = torch.tensor(answer)
                about[row, first : at + length] = -1 if question.about is None else question.about
                kind[first : at + length] = [question.kind] * len(answer)
                position[row, start + at : start + at + length] = torch.arange(start, start + length)
                block = slice(start + at, start + at + length)
                mask[row, 0, block, block] = torch.ones(length, length, dtype=torch.bool).tril()
                at += length
            kinds.append(kind)
            patch_noun[row] = patch_nouns(one.scene, self.noun_ids)
        owners = torch.stack([torch.from_numpy(one.scene.owner).flatten().long() for one in seen])
        features = torch.stack([one.features for one in seen]).float()
        return Batch(features, text, target, position, mask, about, owners, patch_noun, kinds)


def patch_nouns(scene: Scene, noun_ids: dict[str, int]) -> Int[Tensor, " visual"]:
    """Return the token ID of the noun of the thing that covers each patch, -100 for background."""
    ids = torch.tensor([*(noun_ids[thing.noun] for thing in scene.things), -100])
    return ids[torch.from_numpy(scene.owner).flatten().long()]  # the owner of background is -1, the last entry
