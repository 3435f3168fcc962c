"""Patches a late-interaction retrieval model so that each page gets fewer embeddings.

This is a separate call from `patch`, because nothing is pruned inside the model: it reads whole pages, and its output
embeddings are merged.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tokenprune.adapters.conventions import check_no_replica, named_arguments, unwrap_model
from tokenprune.adapters.retrieval import Retriever
from tokenprune.checks import check_choice, is_integer
from tokenprune.engine.patch import ForwardOverride, Patch, Register, dynamo_disabled
from tokenprune.errors import SettingError, UnsupportedError, to_install
from tokenprune.patching.pruning import PatchingHandle
from tokenprune.retrieval.ward import merge_clusters

#: The text tokens of a page whose embeddings are kept.
KeptText = Literal["all", "after", "none"]


class PageMerging(Patch):
    """Merges the embeddings of pages that a model returns."""

    attribute = "_tokenprune_retrieval"

    def __init__(self, retriever: Retriever, factor: int, text: KeptText) -> None:
        super().__init__(retriever.model)
        self.factor = factor
        self.text: KeptText = text
        self._retriever = retriever

    def register(self, register: Register) -> None:
        register(self.model.register_forward_pre_hook(_refuse_replica))
        register(MergingForward(self).install())

    @dynamo_disabled
    def merged(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The output of a call of the model with these arguments; merged, if the call is about pages."""
        kwargs = named_arguments(self.model, args, kwargs)
        patches = self._retriever.patches(kwargs)
        if patches is None or self.factor == 1:
            return output
        embeddings = self._retriever.embeddings(output)
        real = self._retriever.real(kwargs, embeddings)
        return self._retriever.with_embeddings(output, merge_pages(embeddings, patches, real, self.factor, self.text))


@dynamo_disabled
def _refuse_replica(module: nn.Module, args: Any) -> None:
    check_no_replica(module)


class MergingForward(ForwardOverride):
    """The forward of a patched model. PEFT up to version 0.20 calls it past the model's hooks."""

    def __init__(self, merging: PageMerging) -> None:
        super().__init__(merging.model)
        self._merging = merging

    def override(self, *args: Any, **kwargs: Any) -> Any:
        return self._merging.merged(args, kwargs, self.original(*args, **kwargs))


class RetrievalHandle(PatchingHandle[PageMerging]):
    """A patched retrieval model, and the way back. Leaving a `with` block removes the patch."""

    _made_by = "patch_retrieval"

    @property
    def factor(self) -> int:
        return self._patch.factor

    @property
    def text(self) -> KeptText:
        return self._patch.text

    def _settings(self) -> str:
        return f"factor={self.factor}, text={self.text!r}"


def patch_retrieval(model: nn.Module, factor: int = 9, *, text: KeptText = "all") -> RetrievalHandle:
    """Make a loaded ColPali, ColQwen2 or ColModernVBert return `factor` times fewer patch embeddings per page until
    the handle's `remove` is called (Light-ColPali, https://arxiv.org/abs/2506.04997).

        with tokenprune.patch_retrieval(model, factor=9):
            pages = model(**processor(images=pages)).embeddings
        queries = model(**processor(text=queries)).embeddings
        processor.score_retrieval(queries, pages)

    factor: how many patch embeddings are merged into one on average; the paper uses 4, 9, 25 and 49. A page of N
        patches keeps N // factor; 1 changes nothing, whatever `text` is.
    text: which tokens around the patches keep their embeddings, which add to a page's score: "all", including those
        between the tiles that ColModernVBert splits a page into; "after", as in the authors' code, those after the
        patches without the first and the last (in ColQwen2 the first ends the image); or "none".

    All patch embeddings of a page, from all of its tiles, are merged after the projector by hierarchical clustering.
    Text embeddings are kept unchanged and in order, before the merged ones (the authors' code puts them last, which
    does not affect scores). Queries contain no image, so their embeddings are bitwise the same with and without the
    patch. Pages that end up shorter than others in their batch are padded with zeros at the end, which add nothing to a
    score beyond transformers' own padding; only `page[page.any(-1)]` needs to be stored. Everything else in the output
    keeps its length. Gradients flow, so a model can be trained with the merging in place.

    A second call replaces the first; if both are `with` blocks, the first takes effect again when the second ends.
    Raises SettingError for an invalid factor, UnsupportedError for a model of another class or without scipy, and
    PruningError in a forward whose pages have fewer patches than `factor`.
    """
    if not is_integer(factor) or factor < 1:
        raise SettingError(
            f"factor={factor!r} is not a number of embeddings to merge into one. Write an integer of at least 1, such "
            f"as factor=9."
        )
    check_choice("patch_retrieval", "text", text, get_args(KeptText))
    if find_spec("scipy") is None:
        raise UnsupportedError(f"hierarchical merging needs scipy. Type: {to_install('retrieval')}")
    retriever = Retriever(unwrap_model(model))
    merging = PageMerging(retriever, factor, text)
    return RetrievalHandle(merging, merging.install())


def merge_pages(
    embeddings: Float[Tensor, "batch length width"],
    patches: Bool[Tensor, "batch length"],
    real: Bool[Tensor, "batch length"],
    factor: int,
    text: KeptText,
) -> Float[Tensor, "batch shorter width"]:
    """Each row without its padding: the kept text embeddings, followed by the merged patch embeddings."""
    rows = [
        torch.cat([row[kept_text(is_real & ~is_patch, is_patch, text)], merge_clusters(row[is_patch], factor)])
        if bool(is_patch.any())
        else row[is_real]
        for row, is_patch, is_real in zip(embeddings, patches, real, strict=True)
    ]
    return pad_sequence(rows, batch_first=True)


def kept_text(
    others: Bool[Tensor, " length"], patches: Bool[Tensor, " length"], text: KeptText
) -> Bool[Tensor, " length"]:
    """A mask of the tokens that are kept as they are, among the `others` of a page's row, which are not patches."""
    if text == "all":
        return others
    places = torch.arange(len(others), device=others.device)
    after = others & (places > (places * patches).max()) if text == "after" else torch.zeros_like(others)
    return after & (after.cumsum(0) > 1) & (after.cumsum(0) < after.sum())
