"""Fewer embeddings per page for late-interaction retrieval: the second call on, beside `patch`.

It is a call of its own, for nothing is pruned inside the model: pages are read whole, and what comes out is merged.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.hooks import RemovableHandle

from tokenprune.adapters.retrieval import Retriever
from tokenprune.adapters.wrappers import unwrap_model
from tokenprune.engine.call import guard_hooks, named_arguments, uncompiled
from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.retrieval.ward import merged


class RetrievalHandle:
    """A patched retrieval model's way back. Leaving a `with` block removes the patch."""

    def __init__(self, retriever: Retriever, factor: int) -> None:
        self.factor = factor
        self._retriever = retriever
        self._hook: RemovableHandle | None = None

    def install(self) -> None:
        self._hook = self._retriever.model.register_forward_hook(self._after_model, with_kwargs=True)
        guard_hooks()

    def remove(self) -> None:
        """Makes the model what it was before. Doing so twice changes nothing."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    @uncompiled
    def _after_model(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        kwargs = named_arguments(module, args, kwargs)
        patches = self._retriever.patches(kwargs)
        if patches is None or self.factor == 1:
            return None
        embeddings = self._retriever.embeddings(output)
        real = self._retriever.real(kwargs, embeddings)
        return self._retriever.with_embeddings(output, lighter(embeddings, patches, real, self.factor))

    def __enter__(self) -> RetrievalHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = "removed" if self._hook is None else "patched"
        return f"RetrievalHandle({type(self._retriever.model).__name__}, factor={self.factor}, {state})"


def patch_retrieval(model: object, factor: int = 9) -> RetrievalHandle:
    """Makes a loaded ColPali or ColQwen2 give `factor` times fewer patch embeddings for a page, until the handle's
    `remove` (Light-ColPali, https://arxiv.org/abs/2506.04997).

        with tokenprune.patch_retrieval(model, factor=9):
            pages = model(**processor(images=pages)).embeddings
        queries = model(**processor(text=queries)).embeddings
        processor.score_retrieval(queries, pages)

    factor: how many patch embeddings are merged into one on average; the paper has 4, 9, 25 and 49. A page of N patches
        keeps N // factor; 1 changes nothing.

    All patch embeddings of a page are merged, after the projector, by hierarchical clustering; those of the few
    instruction tokens around them are kept as they are, in their order, in front. (That the paper keeps them is read
    from the memory that it reports.) Queries, which bring no picture, stay bitwise as they are, whether patched or not.
    Pages that end up shorter than others of their batch are filled up with rows of zeros behind, which add nothing to a
    score beyond what transformers' own padding does; `page[page.any(-1)]` is what needs to be stored. Everything else
    in the output keeps its length. Gradients flow, so a model can be trained with the merging in place.

    A second call replaces the first. Raises SettingError for a factor that cannot be right, UnsupportedError for a
    model of another class or without scipy, and PruningError in a forward whose pages have fewer patches than `factor`.
    """
    if not isinstance(factor, int) or isinstance(factor, bool) or factor < 1:
        raise SettingError(
            f"factor={factor!r} is not a number of embeddings that are merged into one. Write an integer of at least "
            f"1, such as factor=9."
        )
    if find_spec("scipy") is None:
        raise UnsupportedError('hierarchical merging needs scipy. Type: pip install "tokenprune-vlm[retrieval]"')
    retriever = Retriever(unwrap_model(model))
    handle, replaced = RetrievalHandle(retriever, factor), handle_of(retriever.model)
    if replaced is not None:
        replaced.remove()
    handle.install()
    return handle


def handle_of(model: nn.Module) -> RetrievalHandle | None:
    """The handle whose hook is on `model`."""
    owners = (getattr(hook, "__self__", None) for hook in model._forward_hooks.values())
    return next((owner for owner in owners if isinstance(owner, RetrievalHandle)), None)


def lighter(
    embeddings: Float[Tensor, "batch length width"],
    patches: Bool[Tensor, "batch length"],
    real: Bool[Tensor, "batch length"],
    factor: int,
) -> Float[Tensor, "batch shorter width"]:
    """Every row without its padding: what is no patch embedding, then the patch embeddings, merged."""
    rows = [
        torch.cat([row[is_real & ~is_patch], merged(row[is_patch], factor)]) if bool(is_patch.any()) else row[is_real]
        for row, is_patch, is_real in zip(embeddings, patches, real, strict=True)
    ]
    return pad_sequence(rows, batch_first=True)
