"""A process that times prefills for `run.py`: it reads a batch size and a name, and writes a line of JSON.

The first line of output lists the prefills and the versions that they run on. What packages print goes to stderr.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any

import torch
from shape import kv_bytes

#: The logits of the last prompt token, (1, vocabulary), and the cache.
Answer = tuple[torch.Tensor, Any]
#: A context that is set up around a call without being timed, and yields the call to time.
Prefill = Callable[[], AbstractContextManager[Callable[[], Answer]]]


def serve(load: Callable[[], Callable[[int], Mapping[str, Prefill]]], packages: list[str]) -> None:
    """Answer until the input ends. Each answer has the seconds, the cache's bytes and the logits.

    load: loads the model, and returns a function that makes the prefills for a batch size.
    """
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        make = load()

        def say(**line: Any) -> None:
            print(json.dumps(line), file=answers, flush=True)

        say(prefills=list(make(1)), versions={name: version(name) for name in ("torch", "transformers", *packages)})
        for line in sys.stdin:
            batch, name = line.strip().split(" ", 1)
            with torch.inference_mode(), make(int(batch))[name]() as prefill:
                start = time.perf_counter()
                logits, cache = prefill()
                seconds = time.perf_counter() - start
            say(seconds=seconds, kv_cache_bytes=kv_bytes(cache), logits=logits[0].float().tolist())
