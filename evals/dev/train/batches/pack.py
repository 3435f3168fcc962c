"""Pack many independent questions after one image: a batch of scenes of one grid."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LlavaProcessor

from tokenprune.evals.dev.train.scenes.ask import Question, rec_questions, vqa_questions
from tokenprune.evals.dev.train.scenes.draw import SIGN, Scene
from tokenprune.evals.dev.train.vocabulary.nouns import nouns

TEXT_LENGTH = 192  # question tokens after one image; fixed, so that all batches of a grid have the same shape
UNASKED = -100
RELATIONS = 8  # compared pairs per scene; with fewer, relations were not learned


@dataclass(frozen=True)
class Batch:
    """`target` is -100 where nothing is predicted; `about` has a bit for each thing that a row's answer is read from,
    or that a noun in the question names.

    `weight` is 1 / the number of answer tokens where one is predicted, and 0 elsewhere. `points` are two centers, x and
    y from -1 to 1: of the thing that an answer is read from, and of the thing that it is compared with, or else the
    first again, as in rows of nouns. NaN in other rows, and for several things or none. `counts` marks the first token
    of an answer that is a count. `edges` is the box of the thing that covers a patch, from -1 to 1, and meaningless
    where `owner` is -1. `names` are the tokens that name the things, signs by their words; -100 where a scene has fewer
    things. `mask` says what each question token sees: everything before the questions, and its own question so far.
    """

    text_ids: Int[Tensor, "b text"]
    target: Int[Tensor, "b text"]
    weight: Float[Tensor, "b text"]
    position_ids: Int[Tensor, "b all"]
    mask: Bool[Tensor, "b 1 text all"]
    about: Int[Tensor, "b text 2"]
    points: Float[Tensor, "b text 4"]
    counts: Bool[Tensor, "b text"]
    owner: Int[Tensor, "b visual"]
    edges: Float[Tensor, "b visual 4"]
    patch_noun: Int[Tensor, "b visual"]
    names: Int[Tensor, "b things"]
    grid: tuple[int, int]
    questions: list[list[Question]]

    def nouns(self) -> Bool[Tensor, "b text"]:
        """Return which rows are nouns of questions."""
        return (self.about[..., 0] > 0) & (self.target == UNASKED)

    def compares(self) -> Bool[Tensor, "b text"]:
        """Return which rows are answers that compare two things."""
        return self.about[..., 0] != self.about[..., 1]

    def row_names(self) -> Int[Tensor, "b text"]:
        """Return the name of the thing that a row is about; -100 for several things or none, and for comparisons."""
        things = torch.arange(self.names.shape[1], device=self.about.device)
        is_about = (self.about[..., :1] >> things & 1) > 0  # (b, text, things)
        names = self.names.gather(1, is_about.float().argmax(-1))
        return names.where((is_about.sum(-1) == 1) & ~self.compares(), UNASKED)

    def to(self, device: torch.device) -> Batch:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: t.to(device) for name, t in tensors.items() if isinstance(t, Tensor)})


class Packer:
    """Each question sees only the image and itself, at the position IDs that it has when asked alone."""

    def __init__(self, processor: LlavaProcessor):
        self.tokenizer = processor.tokenizer
        self.nouns = nouns()
        names = [*(noun.name for noun in self.nouns), SIGN]
        self.noun_ids = dict(zip(names, self.tokenizer.convert_tokens_to_ids(names), strict=True))
        self.head = self.tokenizer("USER:").input_ids  # <s> user :
        self.eos = self.tokenizer.eos_token_id
        self.cached: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        if text not in self.cached:
            self.cached[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self.cached[text]

    def questions(self, rng: random.Random, scene: Scene) -> list[Question]:
        """Return REC and VQA questions alternately, each kind shuffled."""
        rec = rec_questions(scene)
        vqa = vqa_questions(rng, scene, self.nouns, relations=RELATIONS)
        rng.shuffle(rec)
        rng.shuffle(vqa)
        share = max(1, len(vqa) // max(1, len(rec)))
        mixed: list[Question] = []
        for index, question in enumerate(rec):
            mixed += [question, *vqa[index * share : (index + 1) * share]]
        return mixed + vqa[len(rec) * share :]

    def names(self, scenes: list[Scene]) -> Int[Tensor, "b things"]:
        names = torch.full((len(scenes), max(len(scene.things) for scene in scenes)), UNASKED)
        for row, scene in zip(names, scenes, strict=True):
            words = [thing.word or thing.noun for thing in scene.things]
            row[: len(words)] = torch.tensor(self.tokenizer.convert_tokens_to_ids(words))
        return names

    def pack(self, rng: random.Random, scenes: list[Scene]) -> Batch:
        start, b = len(self.head) + scenes[0].owner.size, len(scenes)
        text = torch.full((b, TEXT_LENGTH), self.tokenizer.pad_token_id)
        target = torch.full((b, TEXT_LENGTH), UNASKED)
        weight = torch.zeros(b, TEXT_LENGTH)
        about = torch.zeros(b, TEXT_LENGTH, 2, dtype=torch.long)
        points = torch.full((b, TEXT_LENGTH, 4), torch.nan)
        counts = torch.zeros(b, TEXT_LENGTH, dtype=torch.bool)
        position = torch.arange(start + TEXT_LENGTH).repeat(b, 1)
        mask = torch.zeros(b, 1, TEXT_LENGTH, start + TEXT_LENGTH, dtype=torch.bool)
        mask[..., :start] = True
        packed: list[list[Question]] = []
        for row, scene in enumerate(scenes):
            at, asked = 0, []
            for question in self.questions(rng, scene):
                prompt = self.ids(f"{question.text} ASSISTANT:")
                answer = [*self.ids(question.answer), self.eos]
                length = len(prompt) + len(answer) - 1  # the last token is only predicted, never an input
                if at + length > TEXT_LENGTH:
                    continue
                text[row, at : at + length] = torch.tensor([*prompt, *answer[:-1]])
                first = at + len(prompt) - 1
                target[row, first : at + length] = torch.tensor(answer)
                weight[row, first : at + length] = 1 / len(answer)
                about[row, first : at + length] = torch.tensor(
                    [sum(1 << i for i in things) for things in (question.about, question.other or question.about)]
                )
                counts[row, first] = question.kind == "count"
                points[row, first : at + length] = centers(scene, question.about, question.other or question.about)
                for things in (question.about, question.other):
                    names = {self.noun_ids[scene.things[thing].noun] for thing in things}
                    named = [at + index for index, token in enumerate(prompt) if token in names]
                    about[row, named] = sum(1 << thing for thing in things)
                    points[row, named] = centers(scene, things, things)
                position[row, start + at : start + at + length] = torch.arange(start, start + length)
                mask[row, 0, at : at + length, start + at : start + at + length] = torch.ones(length, length).tril() > 0
                asked.append(question)
                at += length
            packed.append(asked)
        return Batch(
            text,
            target,
            weight,
            position,
            mask,
            about,
            points,
            counts,
            torch.stack([torch.from_numpy(scene.owner).flatten().long() for scene in scenes]),
            torch.stack([patch_edges(scene) for scene in scenes]),
            torch.stack([patch_nouns(scene, self.noun_ids) for scene in scenes]),
            self.names(scenes),
            scenes[0].shape,
            packed,
        )


def centers(scene: Scene, first: Sequence[int], second: Sequence[int]) -> Float[Tensor, " 4"]:
    """Return the centers of two things; NaN if either is several things or none."""
    if len(first) != 1 or len(second) != 1:
        return torch.full((4,), torch.nan)
    return torch.tensor([at for thing in (*first, *second) for at in scene.things[thing].center]) * 2 - 1


def patch_nouns(scene: Scene, noun_ids: dict[str, int]) -> Int[Tensor, " visual"]:
    """Return the token ID of the noun of the thing that covers each patch, -100 for background."""
    ids = torch.tensor([*(noun_ids[thing.noun] for thing in scene.things), UNASKED])
    return ids[torch.from_numpy(scene.owner).flatten().long()]  # the owner of background is -1, the last entry


def patch_edges(scene: Scene) -> Float[Tensor, "visual 4"]:
    """Return left, top, right and bottom of the thing that covers each patch, from -1 to 1; for background, of any."""
    boxes = torch.tensor([thing.box for thing in scene.things])
    return boxes[torch.from_numpy(scene.owner).flatten().long()] * 2 - 1
