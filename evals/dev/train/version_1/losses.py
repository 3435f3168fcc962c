"""The losses of the language model: answers, and three aids.

place: a linear head reads the row and column of every visual token from the hidden states of a lower layer. look:
answer rows attend to the patches of their thing. align: a patch's visual token is similar to its noun's embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tokenprune.evals.dev.train.version_1.batches import VISUAL, Batch
from tokenprune.evals.dev.train.version_1.scenes import GRID

NUMBER_BLUR = 1.0  # hundredths; a box edge that is one off should cost little


@dataclass(frozen=True)
class Losses:
    answer: Tensor
    align: Tensor
    look: Tensor
    place: Tensor
    logits: Float[Tensor, "rows vocabulary"]


class Trainee(nn.Module):
    """The model without its tower, and the aids' own parameters (`place_head`), which are discarded after training."""

    head_ids: Tensor
    places: Tensor

    def __init__(self, model: LlavaForConditionalGeneration, head_ids: list[int], first_number: int):
        super().__init__()
        self.projector = model.model.multi_modal_projector
        self.lm = model.model.language_model
        self.place_head = nn.Linear(self.lm.config.hidden_size, 2)
        self.register_buffer("head_ids", torch.tensor(head_ids), persistent=False)
        self.first_number = first_number
        line = (torch.arange(GRID) + 0.5) / GRID * 2 - 1
        places = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(VISUAL, 2)
        self.register_buffer("places", places, persistent=False)

    def project(self, features: Float[Tensor, "b visual d"]) -> Float[Tensor, "b visual width"]:
        return self.projector.linear_2(self.projector.act(self.projector.linear_1(features)))

    def align_loss(self, visual: Float[Tensor, "b visual d"], batch: Batch) -> Tensor:
        """Return the cross-entropy of each thing's patches over the vocabulary, by 14 x cosine with the word
        embeddings."""
        known = batch.patch_noun >= 0
        words = F.normalize(self.lm.embed_tokens.weight.float(), dim=-1)
        return F.cross_entropy(14 * F.normalize(visual[known].float(), dim=-1) @ words.T, batch.patch_noun[known])

    def forward(self, batch: Batch, *, look_layer: int = 3, place_layer: int = 2) -> Losses:
        visual = self.project(batch.features)
        b = len(visual)
        embed = self.lm.embed_tokens
        head = embed(self.head_ids).expand(b, -1, -1)
        hidden = torch.cat([head, visual.to(head.dtype), embed(batch.text_ids)], dim=1)
        rotary = self.lm.rotary_emb(hidden, batch.position_ids)
        look = place = hidden.new_zeros(())
        first = head.shape[1]
        for index, layer in enumerate(self.lm.layers):
            if index == place_layer:
                place = F.l1_loss(
                    self.place_head(hidden[:, first : first + VISUAL]).float(), self.places.expand(b, -1, -1)
                )
            if index == look_layer:
                look = self.look_loss(layer, hidden, rotary, batch)
            hidden = layer(
                hidden, attention_mask=batch.mask, position_ids=batch.position_ids, position_embeddings=rotary
            )
        asked = batch.target >= 0
        rows = self.lm.norm(hidden[:, first + VISUAL :][asked])
        logits = (rows @ embed.weight.T).float()
        return Losses(
            self.answer_loss(logits, batch.target[asked]), self.align_loss(visual, batch), look, place, logits
        )

    def answer_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy. The target of a two-digit number is a narrow bell around it, not a single spike."""
        number = target - self.first_number
        is_number = (number >= 0) & (number < 100)
        logs = logits.log_softmax(-1)
        loss = F.nll_loss(logs, target, reduction="none")
        grid = torch.arange(100, device=logits.device)
        bell = (-0.5 * ((grid - number[is_number, None]) / NUMBER_BLUR) ** 2).softmax(-1)
        numbers = logs[is_number, self.first_number : self.first_number + 100]
        return torch.cat([loss[~is_number], -(bell * numbers).sum(-1)]).mean()

    def look_loss(self, layer: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor], batch: Batch) -> Tensor:
        """Return -log of the attention mass that answer rows put on the patches of their thing, in half of the
        heads."""
        attention = layer.self_attn
        size = attention.head_dim
        first = len(self.head_ids)
        asked = batch.about >= 0
        normed = layer.input_layernorm(hidden)
        half = attention.q_proj.out_features // 2
        queries = F.linear(normed, attention.q_proj.weight[:half]).unflatten(-1, (-1, size)).transpose(1, 2)
        keys = F.linear(normed, attention.k_proj.weight[:half]).unflatten(-1, (-1, size)).transpose(1, 2)
        queries, keys = apply_rotary_pos_emb(queries, keys, *rotary)
        logits = (queries[:, :, first + VISUAL :] @ keys.transpose(2, 3)).float() / size**0.5  # (b, heads, text, all)
        logits = logits.masked_fill(~batch.mask[:, :, first + VISUAL :], float("-inf"))
        shares = logits.softmax(-1)[..., first : first + VISUAL]
        thing = batch.owner[:, None] == batch.about[:, :, None]  # (b, text, visual)
        mass = (shares * thing[:, None]).sum(-1).transpose(1, 2)[asked]  # (rows, heads)
        return -(mass + 1e-4).log().mean()
