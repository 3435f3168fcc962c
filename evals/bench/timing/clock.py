"""Where the time of one prompt and its answer is spent.

tower      the vision tower, of models that have one
between    from the tower's end to the first decoder layer: projector, embeddings, and selection there
prefill    from the first decoder layer to the logits; in-LLM stages select in here
ttft       all of these, from the call to the logits: TTFT without preprocessing and sampling
selection  the part of TTFT spent in the model's hooks, wherever they are: a patch's statistics, selection and gathering
           (and transformers' own hooks, which take almost no time)
decode     one of the later passes, the median of a few in a row
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from tokenprune.adapters import adapter_for
from tokenprune.evals.bench.position_ids import positions
from tokenprune.evals.bench.timing.stopwatch import Stopwatch, timed_hooks
from tokenprune.evals.models.cache import cache_in
from tokenprune.evals.models.greedy import GREEDY

Seconds = dict[str, float]
PHASES = ("tower", "between", "prefill", "ttft", "selection", "decode")
#: Passes timed after each prefill and one untimed pass.
DECODED = 8


@torch.inference_mode()
def phases(model: Any, prefill: Callable[[], Any], n_columns: int) -> Seconds:
    """Time a prefill of `n_columns` tokens a row and a few decoded tokens, on a model that is patched or not."""
    watch = Stopwatch(model.device)
    with timed_hooks(model, watch) as hooks, _listening(model, watch):
        watch.mark("called")
        output = prefill()
        watch.mark("answered")
    tower = {}
    if adapter_for(model).vision_tower is not None:
        tower["tower"] = watch.between("tower called", "tower done")
        tower["between"] = watch.between("tower done", "first layer")
    return tower | {
        "prefill": watch.between("first layer", "answered"),
        "ttft": watch.between("called", "answered"),
        "selection": hooks.seconds(),
        "decode": _decode(model, output, n_columns),
    }


@torch.inference_mode()
def generated(model: Any, inputs: dict[str, Any], n_new: int) -> Seconds:
    """Time `generate` with exactly `n_new` tokens for each row."""
    watch = Stopwatch(model.device)
    watch.mark("called")
    model.generate(**inputs, **GREEDY, max_new_tokens=n_new, min_new_tokens=n_new)
    watch.mark("answered")
    return {"generate": watch.between("called", "answered")}


def _decode(model: Any, output: Any, n_columns: int) -> float:
    """Time greedy decoding, calling the model as `generate` does, with a mask over all tokens so far."""
    name, cache = cache_in(output)
    batch = len(output.logits)
    token = output.logits[:, -1:].argmax(-1)
    mask = token.new_ones(batch, n_columns)
    watch = Stopwatch(model.device)
    watch.mark("0")
    for step in range(DECODED + 1):
        mask = torch.cat([mask, mask.new_ones(batch, 1)], 1)
        given = {"input_ids": token, "attention_mask": mask, name: cache} | positions(model, batch, n_columns + step, 1)
        output = model(**given, use_cache=True, logits_to_keep=1)
        token = output.logits[:, -1:].argmax(-1)
        watch.mark(str(step + 1))
    return statistics.median(watch.between(str(step), str(step + 1)) for step in range(1, DECODED + 1))


@contextmanager
def _listening(model: Any, watch: Stopwatch) -> Iterator[None]:
    adapter = adapter_for(model)

    def called(module: nn.Module, args: Any) -> None:
        watch.mark("tower called")

    def done(module: nn.Module, args: Any, output: Any) -> None:
        watch.mark("tower done")

    def begun(module: nn.Module, args: Any) -> None:
        watch.mark("first layer")

    with ExitStack() as hooks:
        hooks.callback(adapter.layers[0].register_forward_pre_hook(begun).remove)
        if adapter.vision_tower is not None:
            hooks.callback(adapter.vision_tower.register_forward_pre_hook(called, prepend=True).remove)
            hooks.callback(adapter.vision_tower.register_forward_hook(done).remove)
        yield
