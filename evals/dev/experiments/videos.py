"""Time and memory of a prefill with a video: unpruned, pruned, and the ideal, for growing numbers of frames.

    python -m tokenprune.evals.dev.experiments.videos --frames 8 16 32 64 128 256 --output FILE

The model has LLaVA-OneVision's shape and random weights: 196 visual tokens per frame. Encoding takes the same time in
every case, and most of the time on a CPU, so the vision tower has only `--tower-layers` of its 26 layers. The ideal is
the unpatched model on a prompt that contains only as many visual tokens as are kept. Every case runs once to measure
the peak memory beyond weights and pixels, and then `--rounds` times. Rows are written as they are measured; the same
command resumes an interrupted run.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import tokenprune
from tokenprune.evals.bench.inputs.build import build
from tokenprune.evals.bench.inputs.shapes import config_of
from tokenprune.evals.bench.timing.memory import with_peak
from tokenprune.evals.storage.files import append, lock_for_appending
from tokenprune.evals.storage.provenance import device_name, versions
from tokenprune.selection import budget
from tokenprune.strategies.parsing import parse
from tokenprune.strategy import Strategy

N_TEXT = 40


class Case(NamedTuple):
    """A function to time, and the strategy that it runs under."""

    name: str
    keep_ratio: float
    prefill: Callable[[], Any]
    strategy: Strategy | None = None


def prompt(model: Any, n_visual: int) -> dict[str, Tensor]:
    """Return input IDs with text around the placeholders of a video, and an attention mask of ones."""
    ids = torch.ones(1, n_visual + N_TEXT, dtype=torch.long)
    ids[:, N_TEXT // 2 : N_TEXT // 2 + n_visual] = model.config.video_token_id
    ids = ids.to(model.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def cases(model: Any, n_frames: int, options: Namespace) -> list[Case]:
    """Return all cases for a number of frames."""
    side = model.config.vision_config.image_size
    pixels = torch.randn(1, n_frames, 3, side, side, generator=torch.Generator().manual_seed(0))
    video = {"pixel_values_videos": pixels.to(model.device, model.dtype)}
    n_visual = _features(model, video).shape[0]
    whole = prompt(model, n_visual)

    def unpruned() -> Any:
        return model(**whole, **video, use_cache=True, logits_to_keep=1)

    def ideal(n_kept: int) -> Any:
        features, short = _features(model, video), prompt(model, n_kept)
        ids = short.pop("input_ids")
        embeds = model.get_input_embeddings()(ids)
        embeds[ids == model.config.video_token_id] = features[:n_kept].to(embeds.dtype)
        return model(inputs_embeds=embeds, **short, use_cache=True, logits_to_keep=1)

    found = [Case("unpruned", 1.0, unpruned)]
    for ratio in options.keep_ratio:
        n_kept = budget(n_visual, ratio, None)
        found.append(Case("ideal", ratio, lambda n_kept=n_kept: ideal(n_kept)))
        found += [Case(name, ratio, unpruned, parse(name, keep_ratio=ratio)) for name in options.strategy]
    return found


def _features(model: Any, video: dict[str, Tensor]) -> Tensor:
    """Return the features of all visual tokens of a video, including its newline token."""
    return model.get_video_features(**video, return_dict=True).pooler_output[0]


@torch.inference_mode()
def measured(model: Any, n_frames: int, options: Namespace, done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for every case of a number of frames that is not `done`."""
    for case in cases(model, n_frames, options):
        row = {"frames": n_frames, "strategy": case.name, "keep_ratio": case.keep_ratio}
        row |= {"shape": options.shape, "dtype": options.dtype, "tower_layers": options.tower_layers}
        row |= {"decoder_layers": model.config.text_config.num_hidden_layers}
        if any(row.items() <= one.items() for one in done):
            continue
        with nullcontext() if case.strategy is None else tokenprune.patch(model, case.strategy):
            out, peak = with_peak(case.prefill, model.device)
            assert out.logits.isfinite().all()
            del out
            seconds = [_timed(case.prefill, model.device) for _ in range(options.rounds)]
        yield row | {"seconds": [round(one, 4) for one in seconds], "peak_bytes": peak}


def cut(config: Any, tower_layers: int, decoder_layers: int | None) -> Any:
    """Return a configuration with fewer layers."""
    config.vision_config.num_hidden_layers = tower_layers
    if decoder_layers is not None:
        config.text_config.num_hidden_layers = decoder_layers
        config.text_config.layer_types = config.text_config.layer_types[:decoder_layers]
    return config


def _timed(call: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="llava-onevision-0.5b")
    parser.add_argument("--frames", nargs="+", type=int, default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--keep-ratio", nargs="+", type=float, default=[0.25, 0.1])
    parser.add_argument("--strategy", nargs="+", default=["evs", "vidcom2", "vcast", "dycokettm", "fastvid"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tower-layers", type=int, default=1, metavar="N")
    parser.add_argument(
        "--decoder-layers", type=int, default=None, metavar="N", help="number of decoder layers (default: all)"
    )
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = cut(config_of(options.shape), options.tower_layers, options.decoder_layers)
    model = build(options.shape, config, getattr(torch, options.dtype), device, "sdpa")
    about = {"device": device_name(device), "threads": torch.get_num_threads(), "versions": versions()}
    with lock_for_appending(options.output, "another run is writing it") as output:
        done = [json.loads(line) for line in options.output.read_text(encoding="utf-8").splitlines()]
        for n_frames in options.frames:
            for row in measured(model, n_frames, options, done):
                line = json.dumps(row | about)
                append(output, f"{line}\n")
                print(line)


if __name__ == "__main__":
    main()
