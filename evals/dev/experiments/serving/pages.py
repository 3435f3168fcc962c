"""Measure what PixelPrune saves in vLLM on rendered pages, tables and screens, and what it costs where nothing repeats.

vLLM runs in this process on one thread, whose CPU time is measured, so that other work on the machine does not count.
The same engine answers with and without pruning in turn, and every image is new.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tokenprune.evals.arguments.parser import at_least, script_parser
from tokenprune.evals.bench.inputs.rendered import KINDS, rendered
from tokenprune.evals.dev.experiments.serving import qwen
from tokenprune.evals.dev.tables.speed.pages import table
from tokenprune.evals.storage.provenance import versions

SIDE = 1008
NOISE = "noise"
#: vLLM's engine in this process.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
}


def image(kind: str, seed: int) -> Image.Image:
    if kind != NOISE:
        return rendered(kind, SIDE, seed)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))


def engine(folder: Path) -> Any:
    """Start vLLM with PixelPrune."""
    os.environ |= ENVIRONMENT
    overrides = {"architectures": ["TokenPruneQwen2_5_VL"], "tokenprune": {"strategy": "pixelprune"}}
    return import_module("vllm").LLM(
        str(folder),
        dtype="float32",
        hf_overrides=overrides,
        max_model_len=2048,
        max_num_batched_tokens=2048,
        max_num_seqs=1,
        enforce_eager=True,
        enable_prefix_caching=False,
        limit_mm_per_prompt={"image": 1, "video": 0},
        distributed_executor_backend="uni",
    )


def asked(llm: Any, kind: str, seed: int, prunes: bool) -> dict[str, Any]:
    """Return the prompt length and the seconds of an answer of one token."""
    sampling = llm.get_default_sampling_params()
    sampling.max_tokens, sampling.temperature = 1, 0.0
    prompt = {"prompt": qwen.PROMPT, "multi_modal_data": {"image": image(kind, seed)}}
    if not prunes:
        prompt["mm_processor_kwargs"] = {"keep_ratio": 1.0}
    start = time.process_time()
    (output,) = llm.generate([prompt], sampling, use_tqdm=False)
    seconds = time.process_time() - start
    return {"kind": kind, "pruned": prunes, "n_prompt": len(output.prompt_token_ids), "seconds": seconds}


def measure(llm: Any, rounds: int) -> Iterator[list[dict[str, Any]]]:
    """Yield all rows so far after each round."""
    for prunes in (False, True):
        asked(llm, KINDS[0], -1, prunes)
    rows: list[dict[str, Any]] = []
    for number in range(rounds):
        for kind in (*KINDS, NOISE):
            for prunes in (False, True):
                rows.append({"round": number, **asked(llm, kind, 2 * number + prunes, prunes)})
                print(rows[-1], flush=True)
        yield rows


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--rounds", type=at_least(2), default=7, metavar="N", help="rounds; every case runs once in each"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write every value to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        qwen.write(Path(folder))
        llm = engine(Path(folder))
        about = {
            "versions": {**versions(), "vllm": import_module("vllm").__version__},
            "dtype": "float32",
            "device": "cpu",
            "date": time.strftime("%Y-%m-%d"),
        }
        content: dict[str, Any] = {}
        for number, rows in enumerate(measure(llm, options.rounds), 1):
            content = {"about": {**about, "rounds": number}, "rows": rows}
            options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(table(content))


if __name__ == "__main__":
    main()
