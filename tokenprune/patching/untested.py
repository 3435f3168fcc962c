"""Checks by numbers what adapters infer from names and configs, for combinations of classes that no test covers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenprune.adapters import ModelAdapter
from tokenprune.adapters.conventions import unwrap_part
from tokenprune.adapters.decoder.attention import output_projection, text_capture_points
from tokenprune.engine.cache.index import CacheIndex
from tokenprune.engine.call import Forward, Incoming, Pruned
from tokenprune.engine.patch import changing_patches
from tokenprune.engine.stages.capture import attention_reader
from tokenprune.errors import UnsupportedError
from tokenprune.sequence.masks import FULL, HYBRID, RECURRENT, REFERENCE, SLIDING
from tokenprune.sequence.packing import pack
from tokenprune.tokens.stages import TextAttention

#: Text, visual tokens and text of a row; sliding windows and chunks are shortened so that these exceed them.
BEFORE, VISUAL, AFTER, WINDOW = 4, 16, 4, 12
LENGTH = BEFORE + VISUAL + AFTER
#: The largest difference, relative to the size of what is compared: rounding, in all layers together.
TOLERANCE, TOLERANCE_OF_HALVES = 1e-2, 1e-1
ANOTHER = "Load a model with another language model, such as Llama's, Qwen's or Mistral's."
#: What was checked of a model, which holds nothing itself: "tokens", "text".
_checked: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def check_untested(adapter: ModelAdapter, drops: bool, reads_text: bool) -> None:
    """Check a model whose combination of classes the contract matrix did not run (`is_tested`), once, on two rows of 24
    tokens.

    drops: whether tokens are dropped. A row beside one that keeps more must then equal the row alone with its dropped
        tokens masked or, for layers with a state, without them.
    reads_text: whether text attention is read. What is read of every decoder layer must then give what the layer's own
        attention gave the last token. That is compared after it has weighted the values, which every attention
        implementation shows.

    Weights that accelerate keeps elsewhere are loaded for the check as for any call. The model's modules, caches and
    random state are the same afterwards. Models in half precision may differ by 10 %, which rounding alone can do, but
    not after a layer with a state. Sharded models are not checked, nor are adapters whose `language_model` is another
    module: those raise PruningError at the first prompt.

    Raises UnsupportedError for a difference, and for weights on the meta device, which cannot compute.
    """
    wanted = {name for name, needed in {"tokens": drops, "text": reads_text}.items() if needed}
    with changing_patches:
        if not wanted or not _can_be_called(adapter.language_model):
            return
        wanted -= _checked.setdefault(adapter.model, set())
        if not wanted:
            return
        if any(_cannot_load(module) for module in adapter.language_model.modules()):
            raise _refused(adapter, "it has weights on the meta device", "Load them before patch().")
        with _unchanged(adapter.model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            check = _Check(adapter)
            if "tokens" in wanted:
                check.windows()
                check.dropping()
            if "text" in wanted:
                check.text_attention()
        _checked[adapter.model] |= wanted


class _Check:
    """Two rows for a language model whose windows and chunks are short."""

    def __init__(self, adapter: ModelAdapter) -> None:
        self.adapter = copy.copy(adapter)
        self.language_model: Any = unwrap_part(adapter.language_model)
        self.shorten(WINDOW)
        embedding = cast(Any, adapter.model).get_input_embeddings()
        ids = torch.arange(2 * LENGTH).view(2, LENGTH) * 7919 % adapter.decoder.config.vocab_size
        home = embedding.weight.device
        self.embeds: Tensor = embedding(ids if home.type == "meta" else ids.to(home))  # accelerate moves them itself
        self.keep = torch.ones(2, LENGTH, dtype=torch.bool, device=self.embeds.device)
        self.keep[0, BEFORE : LENGTH - AFTER] = torch.arange(VISUAL, device=self.embeds.device) % 4 == 1
        self.keep[1, BEFORE : BEFORE + 3] = False
        self.tolerance = TOLERANCE if self.embeds.dtype == torch.float32 else TOLERANCE_OF_HALVES

    def shorten(self, size: int) -> None:
        """Shorten windows and chunks."""
        self.adapter.decoder = self.adapter.decoder.shortened(size)
        self.language_model.config = self.adapter.decoder.config

    def states(self, embeds: Tensor, mask: Any, ids: Tensor) -> Float[Tensor, "rows length width"]:
        """What the language model makes of these tokens."""
        output = self.language_model.forward(
            inputs_embeds=embeds, attention_mask=mask, position_ids=ids, use_cache=False
        )
        return output[0].float()

    def ids(self, n_rows: int) -> Int[Tensor, "rows length"]:
        return torch.arange(LENGTH, device=self.embeds.device).expand(n_rows, -1)

    def pruned(self, n_rows: int) -> Float[Tensor, "rows left width"]:
        """The states of the first rows' kept tokens, pruned as the engine prunes a prompt. Fillers come first."""
        embeds, keep = self.embeds[:n_rows], self.keep[:n_rows]
        packing = pack(keep, keep.sum(1).tolist())
        incoming = Incoming(None, None, {"image": ~keep}, {}, 0, 0, LENGTH, None, True)
        forward = Forward(incoming, pruned=Pruned(packing, None, CacheIndex.after(None, 0, packing, None)))
        mask = forward.mask(self.adapter, {"inputs_embeds": embeds})
        return self.states(packing.gather_tokens(embeds), mask, packing.gather_ids(self.ids(n_rows)))

    def dropping(self) -> None:
        """Compare the first row beside the second one with that row alone: the text after its image with that of a row
        whose dropped tokens are masked or, if layers have a state, `after_state`."""
        if self.adapter.decoder.layers.contract.startswith("masking"):
            beside = self.pruned(2)[0, -AFTER:]
            alone = self.states(self.embeds[:1], self.keep[:1].long(), self.ids(1))[0, -AFTER:]
            self.refuse(relative(alone, beside).median(), "dropping tokens is not masking them", ANOTHER)
            return
        what = "a row beside one that keeps more is not that row alone, because layers take in the filler before it"
        self.refuse(relative(self.after_state(1), self.after_state(2)).median(), what, ANOTHER, TOLERANCE)

    def after_state(self, n_rows: int) -> Float[Tensor, "before width"]:
        """The first row's text before its image, which follows the filler, after the first layer that has a state.
        Rounding is least there: later, experts that it makes tokens change are as large as the filler."""
        kinds = self.adapter.decoder.layers.kinds
        number = next((number for number, kind in enumerate(kinds) if kind in RECURRENT), 0)
        outputs: dict[str, Any] = {}
        with cast(Any, self.adapter.layers)[number].register_forward_hook(partial(_keep, outputs, "states")):
            self.pruned(n_rows)
        states = outputs["states"][0] if isinstance(outputs["states"], tuple) else outputs["states"]
        return states[0, -int(self.keep[0].sum()) :][:BEFORE].float()

    def windows(self) -> None:
        """Compare windows of two lengths where no layer should have one."""
        layers = self.adapter.decoder.layers
        if layers.window is not None and not {SLIDING, REFERENCE, HYBRID} & set(layers.kinds):
            before = self.pruned(1)
            self.shorten(2)
            what = f"{FULL!r} layers apply the sliding_window of its config"
            trained = "If it was trained without, set sliding_window = None in model.config.get_text_config()."
            self.refuse(relative(before[0, -AFTER:], self.pruned(1)[0, -AFTER:]).median(), what, trained)

    def refuse(self, difference: Tensor, what: str, instead: str, tolerance: float | None = None) -> None:
        """Raise UnsupportedError unless a difference is within the tolerance."""
        if not difference < (self.tolerance if tolerance is None else tolerance):
            raise _refused(self.adapter, f"{what} (they differ by {difference:.1%})", instead)

    def text_attention(self) -> None:
        """Compare what every decoder layer's attention gave the last token with what is read of it."""
        layers: list[tuple[int, Any]] = list(enumerate(self.adapter.layers))
        calls: list[dict[str, Any]] = [{} for _ in layers]
        attended: list[Tensor] = []
        hooks = []
        for number, layer in layers:
            points = text_capture_points(layer)
            hooks.append(points.attention.register_forward_pre_hook(partial(_note, calls[number]), with_kwargs=True))
            hooks.append(output_projection(layer).register_forward_pre_hook(lambda _, args: attended.append(args[0])))
            for name, module in points.outputs.items():
                hooks.append(module.register_forward_hook(partial(_keep, calls[number], name)))
        try:
            self.pruned(1)
        finally:
            for hook in hooks:
                hook.remove()
        for (number, layer), call, given in zip(layers, calls, attended, strict=True):
            places = torch.arange(given.shape[1], device=given.device)
            read = attention_reader(layer, call, 0, torch.ones_like(places[None]).bool())
            expected = weighted_values(read(0, places[BEFORE:-AFTER], places[-AFTER:]))
            difference = relative(given[0, -1:].float(), expected[None])[0]
            what = f"the text attention that strategies read of decoder layer {number} is not what it computes"
            self.refuse(difference, what, "Use a strategy that does not read it, such as FoPru.")


def _note(call: dict[str, Any], module: nn.Module, args: Any, kwargs: Any) -> None:
    call["attention"] = kwargs


def _keep(call: dict[str, Any], name: str, module: nn.Module, args: Any, output: Any) -> None:
    call[name] = output


def weighted_values(attention: TextAttention) -> Float[Tensor, " width"]:
    """What the last token gets: the values, weighted by the attention that it pays to every token, head by head."""
    assert attention.values is not None
    n_shared = len(attention.queries) // len(attention.keys)
    keys, values = (part.float().repeat_interleave(n_shared, 0) for part in (attention.keys, attention.values))
    logits = torch.einsum("hw,htw->ht", attention.queries[:, -1].float(), keys) * attention.scale
    if attention.added is not None:
        logits = logits + attention.added[-1].float()
    if attention.seen is not None:
        logits = logits.masked_fill(~attention.seen[-1], float("-inf"))
    return torch.einsum("ht,htw->hw", logits.softmax(-1), values).flatten()


def relative(
    expected: Float[Tensor, "tokens width"], actual: Float[Tensor, "tokens width"]
) -> Float[Tensor, " tokens"]:
    """How far `found` is from `expected`, relative to the length of each token's vector."""
    return (actual.to(expected.device) - expected).norm(dim=-1) / expected.norm(dim=-1)


def _can_be_called(language_model: nn.Module) -> bool:
    """Whether it is a language model of transformers, whose weights are not sharded: all processes would have to call a
    sharded one together."""
    sharded = any(hasattr(weight, "device_mesh") for weight in language_model.parameters())
    return hasattr(unwrap_part(language_model), "config") and not sharded


def _cannot_load(module: nn.Module) -> bool:
    """Whether a module has weights on the meta device, and no hook of accelerate's that loads them for a call."""
    return not hasattr(module, "_hf_hook") and any(part.is_meta for part in module.parameters(recurse=False))


def _refused(adapter: ModelAdapter, what: str, instead: str) -> UnsupportedError:
    name = type(unwrap_part(adapter.language_model)).__name__
    return UnsupportedError(
        f"{type(adapter.model).__name__} with {name} is a combination that no test covers, and a check on a few tokens "
        f"refuses it: {what}. {instead}"
    )


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Within the block, the modules of a model are in evaluation mode. After it, they have the attributes, buffers
    and modes from before."""
    before = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    try:
        for module, _, _ in before:
            module.training = False
        yield
    finally:
        for module, attributes, buffers in before:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)
