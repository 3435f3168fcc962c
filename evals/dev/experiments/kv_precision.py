"""Fewer visual tokens, or more of them at a lower precision of the KV cache?

    python -m tokenprune.evals.dev.experiments.kv_precision --output runs/kv_precision --table FILE

evaluates the bundled model at several keep ratios, each with a KV cache of 16, 8, 4 and 2 bits per number: the
trade-off of "More Tokens, Lower Precision" (https://arxiv.org/abs/2412.12706). 16 is the model's own bfloat16, 8 is fp8
with a scale per tensor, and 4 and 2 are quanto's integers with a scale and a shift for the 64 numbers of each token and
head: what transformers' `QuantizedCache` offers without further packages.

A killed run resumes with the same command: the answers at each precision have their own folder.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenprune.evals.cli.arguments.parser import script_parser
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.models.cache import cache_in
from tokenprune.evals.models.loading import load_model, public_name
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.storage import results_io
from tokenprune.evals.storage.results import TaskResult

STRATEGIES = ("mosaic",)
KEEP_RATIOS = (0.5, 0.25, 0.125)
#: How many of the newest tokens quanto does not quantise; the prompt always is. No bundled answer is longer.
WINDOW = 16
#: Bits per number -> the arguments of `generate` that choose its cache.
PRECISIONS: dict[int, dict[str, Any]] = {
    16: {},
    8: {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}},
    **{
        bits: {
            "cache_implementation": "quantized",
            "cache_config": {"backend": "quanto", "nbits": bits, "residual_length": WINDOW},
        }
        for bits in (4, 2)
    },
}


@contextmanager
def reading_cache(model: Any, options: Mapping[str, Any]) -> Iterator[None]:
    """Within the block, let `model.generate` fill a cache with the prompt, and read the prompt from the cache.

    transformers quantises keys and values only after the prefill that computes them, so the prefill's logits have full
    precision. With a plain `generate`, the first token of an answer, and all of a one-word answer, would not depend on
    the cache. Here the last prompt token reads the others from the cache, as it would in a later turn of a chat.

    options: the arguments of `generate` that choose the cache, {} for a plain one.
    """
    generate = model.generate

    def from_cache(*, input_ids: Any, attention_mask: Any, pixel_values: Any, **settings: Any) -> Any:
        first = generate(
            input_ids=input_ids[:, :-1],
            attention_mask=attention_mask[:, :-1],
            pixel_values=pixel_values,
            do_sample=False,
            max_new_tokens=1,
            return_dict_in_generate=True,
            **options,
        )
        name, cache = cache_in(first)
        return generate(input_ids=input_ids, attention_mask=attention_mask, **{name: cache}, **settings)

    model.generate = from_cache
    try:
        yield
    finally:
        del model.generate


def measure(options: Namespace) -> list[TaskResult]:
    """Return the results at every precision, which is in `strategy` and, as `kv_bits`, in `settings`. Without times."""
    model, processor = load_model(str(options.model), options.dtype)
    found: list[TaskResult] = []
    for bits in options.bits:
        with reading_cache(model, PRECISIONS[bits]):
            rows = evaluate(
                (model, processor),
                output=options.output / f"{bits} bits",
                strategies=options.strategy,
                keep_ratios=options.keep_ratio,
                position_ids=["original"],
                baselines=["unpruned"],
                data=options.data,
                limit=options.limit,
            )
        found += [
            replace(
                row,
                model=public_name(str(options.model)),
                strategy=f"{row.strategy}, {bits} bits",
                settings={**row.settings, "kv_bits": bits},
                seconds=None,  # they would be of two calls, with caches that save only memory
            )
            for row in rows
        ]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, metavar="PATH", help="model folder")
    parser.add_argument("--dtype", default="bfloat16", help="the model's precision")
    parser.add_argument("--data", type=Path, default=SCENES, metavar="DIR", help="data set to evaluate on")
    parser.add_argument("--strategy", nargs="+", default=list(STRATEGIES), metavar="NAME", help="strategies")
    parser.add_argument(
        "--keep-ratio",
        nargs="+",
        type=float,
        default=list(KEEP_RATIOS),
        metavar="SHARE",
        help="keep ratios in addition to unpruned",
    )
    parser.add_argument(
        "--bits", nargs="+", type=int, default=list(PRECISIONS), choices=PRECISIONS, help="bits per number"
    )
    parser.add_argument("--limit", type=int, default=400, metavar="N", help="questions per task")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the runs")
    parser.add_argument(
        "--table", type=Path, required=True, metavar="FILE", help="file to write the rows to, as JSON lines"
    )
    options = parser.parse_args(arguments)
    rows = measure(options)
    results_io.write(options.table, rows)


if __name__ == "__main__":
    main()
