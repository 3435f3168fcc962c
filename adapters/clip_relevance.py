"""CDPruner's relevance, computed by a CLIP model (https://arxiv.org/abs/2506.10967), whose text tower LLaVA lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from tokenprune.errors import PruningError
from tokenprune.tokens.visual import VisualTokens


class ClipRelevance:
    """For `CDPruner(relevance=...)`: the negative mean cosine of each patch to the question, in CLIP's space.

        clip = CLIPModel.from_pretrained("openai/clip-vit-large-patch14-336")
        tokenizer = AutoTokenizer.from_pretrained("openai/clip-vit-large-patch14-336")
        tokenprune.patch(model, CDPruner(keep=64, relevance=ClipRelevance(clip, tokenizer, question)))

    clip: the CLIPModel whose vision tower the pruned model has. Its own copy of that tower encodes the image again,
        because a pruned model's tower does not keep features of single patches in CLIP's space.
    tokenizer: the CLIPModel's tokenizer. A question longer than the text tower takes is split into parts, each with its
        own first and last token, which the released code does not add.
    question: one question for all images, or one for each image of a batch, in reading order.
    layer: the hidden states that are projected, like LLaVA's `vision_feature_layer`.

    A new question needs a new patch(), which replaces the previous one.
    """

    def __init__(self, clip: nn.Module, tokenizer: Any, question: str | Sequence[str], layer: int = -2) -> None:
        self.clip: Any = clip
        self.tokenizer, self.question, self.layer = tokenizer, question, layer

    @torch.no_grad()
    def __call__(self, tokens: VisualTokens) -> Float[Tensor, " visual"]:
        patches = self.patches(tokens.pixels)
        cosines = patches @ self.text(self.question_of(tokens.image)).T.to(patches)
        return tokens.layout.to_tokens(-cosines.mean(-1)).to(tokens.features.device)

    def question_of(self, image: int) -> str:
        if isinstance(self.question, str):
            return self.question
        if image >= len(self.question):
            raise PruningError(
                f"ClipRelevance has {len(self.question)} questions, but the batch has more images. Pass one for each "
                f"image, or a single string for all of them."
            )
        return self.question[image]

    def patches(self, pixels: Float[Tensor, "tiles channels height width"]) -> Float[Tensor, "tiles patches space"]:
        """Project every patch into CLIP's space, normalised to length 1."""
        tower = self.clip.vision_model
        states = tower(pixels.to(self.clip.device, self.clip.dtype), output_hidden_states=True).hidden_states
        return normalize(self.clip.visual_projection(tower.post_layernorm(states[self.layer][:, 1:])).float(), dim=-1)

    def text(self, question: str) -> Float[Tensor, "parts space"]:
        """Project the question into CLIP's space, in as many parts as needed."""
        ids: Int[Tensor, " length"] = self.tokenizer(question, return_tensors="pt")["input_ids"][0].to(self.clip.device)
        begin, inner, end = ids[:1], ids[1:-1], ids[-1:]
        parts = inner.split(self.clip.config.text_config.max_position_embeddings - 2)
        pooled = [self.clip.text_model(torch.cat([begin, part, end])[None]).pooler_output for part in parts]
        return normalize(self.clip.text_projection(torch.cat(pooled)).float(), dim=-1)
