"""A self-contained HTML page of an explanation, with a slider over the keep ratio and switches for everything else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.filesize import decimal

from tokenprune import SettingError, Strategy, UnsupportedError
from tokenprune.evals.boxes import Box
from tokenprune.evals.explain.canvas import Raster
from tokenprune.evals.explain.outcomes import Explanation, Outcome
from tokenprune.evals.explain.panels import HEAT, ranks
from tokenprune.evals.report.rendering import jpeg_url, png_url, render
from tokenprune.evals.run.setups import FromFile, Pruned, Setup, make_setups
from tokenprune.evals.storage.files import naming

#: The slider's stops, in addition to the requested keep ratios.
SLIDER = (0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)


def slider(model: Any, strategies: Sequence[str | Strategy], keep_ratios: Sequence[float]) -> list[Setup]:
    """Return the setups whose outcomes the page needs, with both position IDs: the strategies at the requested keep
    ratios, and at every other stop that they can reach in this model. Settings files stay at their own keep ratio."""
    asked = make_setups(strategies, keep_ratios, baselines=[])
    movable = {
        (setup.label, setup.position_ids): setup
        for setup in asked
        if isinstance(setup, Pruned) and not isinstance(setup, FromFile)
    }
    stops = [ratio for ratio in SLIDER if ratio not in keep_ratios]
    moved = [_at(model, setup, ratio) for ratio in stops for setup in movable.values()]
    return sorted([*asked, *(setup for setup in moved if setup is not None)], key=lambda setup: -setup.keep_ratio)


def _at(model: Any, setup: Pruned, keep_ratio: float) -> Pruned | None:
    """Return a setup at another keep ratio; None if its strategy cannot reach it in this model, such as an average over
    the layers that the layers before the first stage exceed."""
    try:
        moved = replace(setup, keep_ratio=keep_ratio, strategy=replace(setup.strategy, keep_ratio=keep_ratio))
        with suppress(UnsupportedError), moved.patched(model):  # at every ratio: asking reports it
            pass
    except SettingError:
        return None
    return moved


def write(explanation: Explanation, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        path.write_text(page(explanation), encoding="utf-8")


def page(explanation: Explanation) -> str:
    """Return the page, without smaller images. Each image is embedded once, and kept tokens as one bit each."""
    shown, urls = explanation.canvas, _Distinct()
    images = [urls.number(jpeg_url(raster.image)) for raster in shown.rasters]
    heats = _Distinct()
    outcomes = [_outcome(explanation, outcome, heats) for outcome in explanation.outcomes if outcome.canvas is None]
    data = {
        "rasters": [_raster(raster) for raster in shown.rasters],
        "unpruned": outcomes[0],
        "outcomes": outcomes[1:],
        "heats": heats.values,
    }
    return render(
        "kept_tokens.html",
        explanation=explanation,
        canvas=shown,
        urls=urls.values,
        placed=list(zip(shown.rasters, images, strict=True)),
        true_boxes=_rectangles(explanation, explanation.true_box),
        strategies=list(dict.fromkeys(outcome["strategy"] for outcome in outcomes[1:])),
        first=next((outcome["strategy"] for outcome in outcomes[1:] if outcome["heat"]), outcomes[-1]["strategy"]),
        kinds=list(dict.fromkeys(outcome["ids"] for outcome in outcomes[1:])),
        outcomes=outcomes,
        cividis=[_hex(HEAT(x)) for x in np.linspace(0, 1, 9)],
        data=data,
    )


class _Distinct:
    """Numbered strings; equal strings share a number."""

    def __init__(self) -> None:
        self.values: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.values:
            self.values.append(text)
        return self.values.index(text)


def _outcome(explanation: Explanation, outcome: Outcome, heats: _Distinct) -> dict[str, Any]:
    """Return an outcome as the page's script needs it."""
    setup, kept, unpruned = outcome.setup, outcome.kept, explanation.unpruned
    rasters = explanation.canvas.rasters
    costs = [("visual tokens a layer", kept.n_mean / kept.n_visual, f"{kept.n_mean:.4g} of {kept.n_visual}")]
    share = outcome.kv_cache_bytes / unpruned.kv_cache_bytes
    costs.append(("KV cache", share, f"{decimal(outcome.kv_cache_bytes)}, {share:.2f}x"))
    if outcome.ttft is not None:
        costs.append(("time to first token", outcome.ttft, f"{outcome.ttft:.2f}x"))
    scores = None if kept.scores is None else ranks(kept.scores)
    return {
        "strategy": setup.label,
        "ids": setup.position_ids,
        "ratio": setup.keep_ratio,
        "tokens": kept.summary,
        "entered": _bits(kept.entered),
        "left": _bits(kept.left),
        "received": _bits(kept.received) if kept.received.any() else "",
        "heat": None if scores is None else [heats.number(url) for url in _heat(scores, rasters)],
        "scored": "" if kept.scored_at is None else f"on entry to decoder layer {kept.scored_at}",
        "answer": outcome.answer,
        "verdict": explanation.verdict(outcome),
        "boxes": _rectangles(explanation, outcome.box),
        "costs": costs,
    }


def _raster(raster: Raster) -> dict[str, Any]:
    left, top, right, bottom = raster.place
    rows, columns = raster.tokens.shape
    place = {"x": left, "y": top, "width": right - left, "height": bottom - top, "rows": rows, "columns": columns}
    return place | {"tokens": raster.tokens.flatten().tolist()}


def _rectangles(explanation: Explanation, box: Box | None) -> list[list[float]]:
    """x, y, width and height of a box on every raster that shows it."""
    boxes = [] if box is None else explanation.canvas.boxes(box)
    return [[round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1)] for x1, y1, x2, y2 in boxes]


def _bits(mask: np.ndarray) -> str:
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def _heat(values: np.ndarray, rasters: Sequence[Raster]) -> list[str]:
    """Return an image per raster with a pixel per token, transparent where it was not scored."""
    urls = []
    for raster in rasters:
        heat = values[raster.tokens] if raster.tokens.size else np.full((1, 1), np.nan)
        pixels = np.asarray(HEAT(np.nan_to_num(heat), bytes=True)).copy()
        pixels[..., 3] = np.where(np.isnan(heat), 0, 255)
        urls.append(png_url(Image.fromarray(pixels)))
    return urls


def _hex(color: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in color[:3])
