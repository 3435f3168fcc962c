"""The losses of the language model: answers, and aids that work on any grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, apply_rotary_pos_emb

from tokenprune.evals.dev.train.batches.pack import UNASKED, Batch
from tokenprune.evals.dev.train.batches.patches import TEMPERATURE

NUMBER_BLUR = 1.0  # hundredths; a box edge that is one off should cost little
_FORBIDDEN = -1e4


@dataclass(frozen=True)
class Losses:
    answer: Tensor
    align: Tensor
    look: Tensor
    name: Tensor
    recall: Tensor
    count: Tensor
    place: Tensor
    edges: Tensor
    points: Tensor
    logits: Float[Tensor, "rows vocabulary"]


class Trainee(nn.Module):
    """The model without its tower, with three heads that are discarded after training.

    Heads. place: reads the row and column of every visual token from a lower layer. edges: reads the box of the thing
    that covers a patch, at the layer where answers look at it. points: reads where the looked-at thing is, from answers
    and nouns two layers later, and from answers that compare two things, where both are, after one more layer.

    Other losses. look: answers and nouns attend to the patches of their things. name: what they get from there is
    similar to the embedding of the thing's name. recall: answers that compare attend to the nouns of their question,
    which have already looked. count: answers that count attend equally to each thing and to the first token, whose
    share then gives the number. align: a patch's visual token is similar to its noun's embedding.
    """

    def __init__(self, model: LlavaForConditionalGeneration, head_ids: list[int], first_number: int):
        super().__init__()
        self.projector = model.model.multi_modal_projector
        self.lm = model.model.language_model
        self.place_head = nn.Linear(self.lm.config.hidden_size, 2)
        self.edge_head = nn.Linear(self.lm.config.hidden_size, 4)
        self.point_head = nn.Linear(self.lm.config.hidden_size, 4)
        self.register_buffer("head_ids", torch.tensor(head_ids), persistent=False)
        self.first_number = first_number

    def project(self, features: Float[Tensor, "*b d"]) -> Float[Tensor, "*b width"]:
        return self.projector.linear_2(self.projector.act(self.projector.linear_1(features)))

    def forward(
        self,
        features: Float[Tensor, "b visual d"],
        batch: Batch,
        *,
        look_layer: int = 6,
        count_layer: int = 7,
        place_layer: int = 4,
        point_layer: int = 8,
        compare_layer: int = 9,
        aids: bool = True,
    ) -> Losses:
        visual = self.project(features)
        embed = self.lm.embed_tokens
        head = embed(self.head_ids).expand(len(visual), -1, -1)
        hidden = torch.cat([head, visual.to(head.dtype), embed(batch.text_ids)], dim=1)
        rotary = self.lm.rotary_emb(hidden, batch.position_ids)
        look = name = recall = count = place = edges = align = hidden.new_zeros(())
        pointing, compares, off = ~batch.points.isnan().any(-1), batch.compares(), []
        first, start = head.shape[1], head.shape[1] + visual.shape[1]
        masks = _FORBIDDEN * ~torch.ones(start, start, device=hidden.device).tril().bool(), _FORBIDDEN * ~batch.mask
        for index, layer in enumerate(self.lm.layers):
            if index == place_layer:
                places = self.place_head(hidden[:, first:start]).float()
                place = F.l1_loss(places, grid_places(batch.grid).to(hidden.device).expand(len(visual), -1, -1))
            if index == look_layer:
                known = batch.owner >= 0
                read = self.edge_head(hidden[:, first:start][known]).float()
                edges = (read - batch.edges[known]).abs().sum() / max(1, read.numel())
            if index in (point_layer, compare_layer):
                rows = pointing & (compares == (index == compare_layer))
                off.append((self.point_head(hidden[:, start:][rows]).float() - batch.points[rows]).abs())
            if index == look_layer and aids:
                shares = attention_shares(layer, hidden, rotary, batch)[..., first:start]
                look = look_loss(shares, batch)
                name = name_loss(layer, hidden[:, first:start], shares, embed.weight, batch)
            if index == count_layer and aids:
                count = count_loss(attention_shares(layer, hidden, rotary, batch), batch, first)
            if index == point_layer and aids:
                recall = recall_loss(attention_shares(layer, hidden, rotary, batch), batch)
            hidden = run_layer(layer, hidden, rotary, masks)
        if aids:
            align = align_loss(visual, embed.weight, batch.patch_noun)
        asked = batch.target >= 0
        logits = (self.lm.norm(hidden[:, start:][asked]) @ embed.weight.T).float()
        answer = self.answer_loss(logits, batch.target[asked], batch.weight[asked])
        points = torch.cat(off).sum() / max(1, sum(part.numel() for part in off)) if off else hidden.new_zeros(())
        return Losses(answer, align, look, name, recall, count, place, edges, points, logits)

    def answer_loss(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the cross-entropy. The target of a two-digit number is a narrow bell around it, not a single spike.

        It is a mean over questions, not over tokens: a box of four numbers counts no more than a yes.
        """
        number = target - self.first_number
        is_number = (number >= 0) & (number < 100)
        logs = logits.log_softmax(-1)
        loss = F.nll_loss(logs, target, reduction="none")
        grid = torch.arange(100, device=logits.device)
        bell = (-0.5 * ((grid - number[is_number, None]) / NUMBER_BLUR) ** 2).softmax(-1)
        numbers = logs[is_number, self.first_number : self.first_number + 100]
        loss = loss.masked_scatter(is_number, -(bell * numbers).sum(-1))
        return (weight * loss).sum() / weight.sum()


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention with an additive mask. On a CPU in BF16, it takes two thirds of the time of PyTorch's fused kernel."""
    return (query @ key.transpose(-1, -2) + mask.to(query.dtype)).softmax(-1, dtype=query.dtype) @ value


def run_layer(
    layer: LlamaDecoderLayer,
    hidden: Float[Tensor, "b all width"],
    rotary: tuple[Tensor, Tensor],
    masks: tuple[Tensor, Tensor],
) -> Float[Tensor, "b all width"]:
    """Run a decoder layer over what all questions share, and then over the questions, with an additive mask for each.

    Equals the layer's own forward with one mask over everything, at half the cost of attention.
    """
    (cos, sin), start = rotary, masks[0].shape[-1]
    attention = layer.self_attn
    size = attention.head_dim
    normed = layer.input_layernorm(hidden)
    query, key, value = (
        project(normed).unflatten(-1, (-1, size)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, cos.to(value.dtype), sin.to(value.dtype))
    groups = attention.num_key_value_groups
    query, key, value = query * size**-0.5, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    shared = attend(query[:, :, :start], key[:, :, :start], value[:, :, :start], masks[0])
    asked = attend(query[:, :, start:], key, value, masks[1])
    mixed = torch.cat([shared, asked], dim=2).transpose(1, 2).flatten(2)
    hidden = hidden + attention.o_proj(mixed)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def look_loss(shares: Float[Tensor, "b heads text visual"], batch: Batch) -> Tensor:
    """Return -log of the attention mass on the patches of what the question is about, in a quarter of the heads.

    Another quarter looks at what that is compared with or, without a comparison, at the same patches.
    """
    about = batch.about[:, :, quarters(shares)].transpose(1, 2)
    owner = batch.owner[:, None, None]  # -1 for background
    things = (about[..., None] >> owner.clamp(min=0) & 1) * (owner >= 0)  # (b, heads, text, visual)
    mass = (shares * things).sum(-1).transpose(1, 2)[batch.about[..., 0] > 0]  # (rows, heads)
    return -(mass + 1e-4).log().mean()


def name_loss(
    layer: LlamaDecoderLayer,
    visual: Float[Tensor, "b visual width"],
    shares: Float[Tensor, "b heads text visual"],
    words: Tensor,
    batch: Batch,
) -> Tensor:
    """Return the cross-entropy over the vocabulary, by cosine, of what the looking heads bring from the image to rows
    about one thing.

    All rows that look take part, because answers that are names are too few to teach these heads.
    """
    attention = layer.self_attn
    size, groups, heads = attention.head_dim, attention.num_key_value_groups, shares.shape[1]
    values = F.linear(layer.input_layernorm(visual), attention.v_proj.weight[: heads // groups * size])
    values = values.unflatten(-1, (-1, size)).transpose(1, 2).repeat_interleave(groups, 1)
    mixed = (shares.to(values.dtype) @ values).transpose(1, 2).flatten(2)
    names = batch.row_names()
    named = names != UNASKED
    return cosine_loss(F.linear(mixed[named], attention.o_proj.weight[:, : heads * size]), words, names[named])


def recall_loss(shares: Float[Tensor, "b heads text all"], batch: Batch) -> Tensor:
    """For answers that compare, return -log of the attention mass on the question's first noun in a quarter of the
    heads.

    Another quarter attends to the last noun.
    """
    shares = shares[..., -batch.mask.shape[-2] :]
    nouns = batch.mask[:, 0, :, -batch.mask.shape[-2] :] & batch.nouns()[:, None]  # (b, text, text)
    first = nouns.float().argmax(-1)
    last = nouns.shape[-1] - 1 - nouns.flip(-1).float().argmax(-1)
    at = torch.stack([first, last], 1)[:, quarters(shares)]  # (b, heads, text)
    mass = shares.gather(-1, at[..., None])[..., 0].transpose(1, 2)[batch.compares()]  # (rows, heads)
    return -mass.clamp(min=1e-30).log().sum() / max(1, mass.numel())  # at 1e-4, low masses would not learn


def count_loss(shares: Float[Tensor, "b heads text all"], batch: Batch, first: int) -> Tensor:
    """For answers that count, return the divergence of the attention from equal mass on each thing and on the first
    token, in a quarter of the heads. A thing's mass may lie on any of its patches.
    """
    things = torch.arange(batch.names.shape[1], device=shares.device)
    covers = (batch.owner[..., None] == things).float()  # (b, visual, things)
    image, row = batch.counts.nonzero(as_tuple=True)
    of_row = shares[image, : shares.shape[1] // 2, row]  # (rows, heads, all)
    mass = torch.cat([of_row[..., :1], of_row[..., first : first + covers.shape[1]] @ covers[image]], -1)
    counted = (batch.about[image, row, :1] >> things & 1) * covers.any(1)[image]  # a small thing may cover no patch
    wanted = F.pad(counted, (1, 0), value=1)[:, None]
    logs = (mass.clamp(min=1e-30).log() * wanted).sum(-1) / wanted.sum(-1)
    return -(logs + wanted.sum(-1).log()).sum() / max(1, logs.numel())


def attention_shares(
    layer: LlamaDecoderLayer, hidden: Tensor, rotary: tuple[Tensor, Tensor], batch: Batch
) -> Float[Tensor, "b heads text all"]:
    """Return the attention distribution of the question tokens in the first half of the heads."""
    attention = layer.self_attn
    size, start = attention.head_dim, batch.mask.shape[-1] - batch.mask.shape[-2]
    groups = attention.num_key_value_groups
    normed = layer.input_layernorm(hidden)
    half = attention.q_proj.out_features // size // 2 // groups * groups
    queries = F.linear(normed, attention.q_proj.weight[: half * size]).unflatten(-1, (-1, size)).transpose(1, 2)
    keys = F.linear(normed, attention.k_proj.weight[: half // groups * size]).unflatten(-1, (-1, size)).transpose(1, 2)
    queries, keys = apply_rotary_pos_emb(queries, keys, *rotary)
    keys = keys.repeat_interleave(groups, 1)
    logits = (queries[:, :, start:] @ keys.transpose(2, 3)).float() / size**0.5
    return logits.masked_fill(~batch.mask, float("-inf")).softmax(-1).nan_to_num()


def quarters(shares: Float[Tensor, "b heads text keys"]) -> Int[Tensor, " heads"]:
    """Return, for each head, the thing it looks at: 0 (the first) for the first quarter of all heads, 1 (the one it is
    compared with) for the second."""
    half = shares.shape[1]
    return torch.arange(half, device=shares.device) * 2 // half


def align_loss(visual: Float[Tensor, "b visual d"], words: Tensor, patch_noun: Tensor) -> Tensor:
    """Return the cross-entropy of each thing's patches over the vocabulary, by cosine with the word embeddings."""
    known = patch_noun >= 0
    return cosine_loss(visual[known], words, patch_noun[known])


def cosine_loss(rows: Float[Tensor, "rows d"], words: Float[Tensor, "words d"], true: Int[Tensor, " rows"]) -> Tensor:
    logits = F.normalize(rows.float(), dim=-1) @ F.normalize(words.float(), dim=-1).T
    return F.cross_entropy(TEMPERATURE * logits, true)


def grid_places(grid: tuple[int, int]) -> Float[Tensor, "visual 2"]:
    """Return row and column of every patch's centre, from -1 to 1."""
    lines = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in grid)
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).flatten(0, 1)
