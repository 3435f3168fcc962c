"""How the layers of a model's language model attend, and which masks they take: what its config says of it, and where
that may be silent, its code."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from textwrap import dedent
from types import CodeType
from typing import Any

import torch
from torch import nn

from tokenprune.adapters.conventions import unwrap_model, unwrap_part
from tokenprune.errors import UnsupportedError
from tokenprune.sequence.masks import (
    BLOCKS,
    CHUNKED,
    CONVOLUTION,
    FULL,
    HYBRID,
    INDEXED,
    LINEAR,
    POOLED,
    RECURRENT,
    REFERENCE,
    SEPARATE,
    SLIDING,
    LayerKinds,
)
from tokenprune.sequence.position_ids import PositionIds

#: Attention implementations that take any mask as a tensor.
TENSOR_MASKS = ("sdpa", "eager")
#: The function of transformers that makes the masks of sliding-window layers; and what masks are called.
MAKES_WINDOWS, MASK = "create_sliding_window_causal_mask", "attention_mask"


#: The kinds of layers that can be pruned, by their names in transformers' configs.
KINDS = {
    **{kind: kind for kind in (FULL, SLIDING, REFERENCE, CHUNKED, INDEXED, BLOCKS, LINEAR, CONVOLUTION)},
    "attention": FULL,
    "mamba": LINEAR,
    "hybrid": HYBRID,
    "hybrid_sliding": HYBRID,
    "moe": SEPARATE,
    "mlp": SEPARATE,
}


@dataclass(frozen=True)
class Decoder:
    """How a language model attends.

    config: the config of the language model.
    layers: how each of its layers attends.
    noncausal: whether it is given masks that are not causal.
    """

    config: Any
    layers: LayerKinds
    noncausal: bool

    @classmethod
    def of(cls, config: Any, noncausal: bool, language_model: nn.Module, layers: nn.ModuleList) -> Decoder:
        """Read a language model's config, and its code where that may differ from the config. Raises UnsupportedError
        for layers or an attention that cannot be pruned exactly."""
        window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
        by_kind = kinds is not None
        if kinds is None:
            kinds = (FULL if window is None else SLIDING,) * config.num_hidden_layers
        for kind in kinds:
            if kind not in KINDS:
                raise UnsupportedError(
                    f"a {config.model_type} language model with {kind!r} layers is not supported: how these layers "
                    f"attend is unknown. Load a model whose layers are among {', '.join(KINDS)}."
                )
        kinds = tuple(KINDS[kind] for kind in kinds)
        if getattr(config, "index_kpool", None) is not None:
            kinds = tuple(POOLED if kind == INDEXED else kind for kind in kinds)
        name = type(language_model).__name__
        if SLIDING in kinds and not makes_windows(language_model):
            raise UnsupportedError(
                f"the language model's config has sliding_window={window}, which {name} ignores, so which tokens it "
                f"attends to is unknown. If it attends to all of them, set sliding_window = None (and layer_types = "
                f"None) in model.config.get_text_config()."
            )
        sparse = None if {INDEXED, BLOCKS, POOLED} & set(kinds) else rewrites_masks(layers)
        if sparse is not None:
            raise UnsupportedError(
                f"a {config.model_type} language model is not supported: its {sparse} computes which tokens to attend "
                f"to from their content, which pruning changes. Load a model with another language model."
            )
        chunk = getattr(config, "attention_chunk_size", None)
        decoder = cls(config, LayerKinds(kinds, window, by_kind, chunk), noncausal)
        decoder._check_kind_of_masks()
        return decoder

    def shortened(self, size: int) -> Decoder:
        """Return the same, with a config of its own, whose windows and chunks are `size` columns long."""
        config, window, chunk = copy(self.config), self.layers.window and size, self.layers.chunk and size
        for name, value in {"sliding_window": window, "attention_chunk_size": chunk}.items():
            if value is not None:
                setattr(config, name, value)
        return replace(self, config=config, layers=replace(self.layers, window=window, chunk=chunk))

    @property
    def runs_flash(self) -> bool:
        """Whether attention currently runs in FlashAttention, which takes masks over keys only."""
        return "flash" in self.config._attn_implementation

    def check_masks(self, biased: bool = False) -> None:
        """Raise UnsupportedError if transformers does not make, or the attention does not take, the masks that pruning
        needs. `biased` masks add to the logits."""
        self._check_kind_of_masks(biased)
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

        implementation = self.config._attn_implementation
        if implementation not in ALL_MASK_ATTENTION_FUNCTIONS:
            raise UnsupportedError(
                f"transformers makes no masks for attn_implementation={implementation!r}, and rows that keep different "
                f"numbers of tokens need them. Register those that it takes, such as "
                f"transformers.AttentionMaskInterface.register({implementation!r}, transformers.masking_utils.sdpa_mask"
                f'), or load the model with attn_implementation="sdpa".'
            )

    def _check_kind_of_masks(self, biased: bool = False) -> None:
        """Without asking whether transformers makes any, because vLLM makes its own."""
        implementation = self.config._attn_implementation
        if biased and implementation not in TENSOR_MASKS:
            raise UnsupportedError(
                f'attention_bias="size" needs an additive mask, and attn_implementation={implementation!r} takes no '
                f'mask of that kind. Load the model with attn_implementation="sdpa" or "eager", or leave out '
                f"attention_bias."
            )
        if (self.noncausal or self.layers.patterned) and implementation not in TENSOR_MASKS:
            window = "sliding-window attention"
            names = {SLIDING: window, REFERENCE: window, CHUNKED: "chunked attention", INDEXED: "indexed attention"}
            known = (name for kind, name in names.items() if kind in self.layers.kinds)
            what = next(known, "attention that is not causal")
            raise UnsupportedError(
                f"{what} needs its own masks after pruning, and attn_implementation={implementation!r} does not take "
                f'them. Load the model with attn_implementation="sdpa" or "eager".'
            )

    def check_numbering(self, position_ids: PositionIds) -> None:
        """Raise UnsupportedError if the layers do not take such position IDs after pruning."""
        if BLOCKS in self.layers.kinds and position_ids != "compact":
            raise UnsupportedError(
                f"compact IDs only: {BLOCKS!r} layers compare position IDs with slots of the cache, which pruning "
                f'shortens. Write patch(model, ..., position_ids="compact").'
            )

    def check_bias(self) -> None:
        """Raise UnsupportedError if nothing can be added to the attention logits of single keys in every layer."""
        reasons = {
            **dict.fromkeys(RECURRENT, "have a state, which takes in each token once"),
            **dict.fromkeys((INDEXED, BLOCKS, POOLED), "choose keys by an indexer, which counts each token once"),
        }
        kind = next((kind for kind in self.layers.kinds if kind in reasons), None)
        if kind is not None:
            raise UnsupportedError(
                f'attention_bias="size" is for layers that attend to all tokens, and {kind!r} layers '
                f"{reasons[kind]}. Leave attention_bias out."
            )
        self.check_masks(biased=True)

    def mask_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of the masks that the model makes itself, for embeddings of `dtype`."""
        return torch.bool if self.config._attn_implementation == "sdpa" else dtype


def makes_windows(language_model: nn.Module) -> bool:
    """Whether the language model's forward makes masks with a sliding window."""
    forward = inspect.unwrap(type(unwrap_part(unwrap_model(language_model))).forward)
    return MAKES_WINDOWS in _names(forward.__code__)


def rewrites_masks(layers: nn.ModuleList) -> str | None:
    """The class of the first attention module that computes a mask of its own, as sparse attention does; None if all
    use the mask that they are given."""
    classes = {type(module): None for layer in layers for module in layer.modules()}
    return next((cls.__name__ for cls in classes if cls.__name__.endswith("Attention") and _rewrites(cls)), None)


def _names(code: CodeType) -> Iterator[str]:
    """The names that a function and those inside it refer to."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@cache
def _rewrites(attention: Any) -> bool:
    """Whether an attention class's forward assigns its mask, or passes it to one of its own methods or modules. False
    for a class without source code."""
    tree = forward_tree(attention)
    return tree is not None and any(_is_mask(node, ast.Store) or _hands_on(node) for node in ast.walk(tree))


def _is_mask(node: ast.AST, context: type[ast.expr_context]) -> bool:
    return isinstance(node, ast.Name) and node.id == MASK and isinstance(node.ctx, context)


def _hands_on(node: ast.AST) -> bool:
    """Whether a node is a call of an attribute of `self` with the mask among its arguments."""
    if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("self."):
        return False
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    return any(_is_mask(part, ast.Load) for argument in given for part in ast.walk(argument))


def forward_tree(attention: Any) -> ast.Module | None:
    """The syntax tree of an attention class's forward; None without source code."""
    try:
        return ast.parse(dedent(inspect.getsource(inspect.unwrap(attention.forward))))
    except (OSError, TypeError):
        return None
