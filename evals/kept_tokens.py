"""One panel of a picture: which visual tokens were kept, and which box the model answered."""

import textwrap
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from PIL import Image

from tokenprune.evals.boxes import Box, iou, within
from tokenprune.evals.configurations import Configuration
from tokenprune.evals.prompts import encode
from tokenprune.evals.styles import style_of

MAX_NEW_TOKENS = 32  # LLaVA's box format is the longest answer: about 30 tokens; shorter ones end by themselves

# Okabe and Ito's colours, which colour-blind people tell apart; the dashes do so without any colour.
STYLES: dict[str, tuple[str, Literal["-", "--"]]] = {"answered box": ("#E69F00", "-"), "true box": ("#56B4E9", "--")}


@dataclass(frozen=True, eq=False)
class Look:
    """What a model saw and said.

    `pixels` is the picture as its processor resized it; `dropped` has the shape of the grid of visual tokens. `box` is
    what was answered, in fractions of that picture's width and height.
    """

    label: str
    pixels: np.ndarray
    dropped: np.ndarray
    answer: str
    box: Box | None

    @property
    def n_kept(self) -> int:
        return int((~self.dropped).sum())


@torch.inference_mode()
def look(model: Any, processor: Any, configuration: Configuration, picture: Image.Image, question: str) -> Look:
    """Ask `model` one question, unpruned or with a strategy."""
    inputs = encode(processor, [[picture]], [question]).to(model.device, model.dtype)
    with configuration.patched(model) as handle:
        output = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
        image = None if handle is None else handle.report.images[0]
    if image is None:
        dropped = np.zeros((1, int((inputs["input_ids"] == processor.image_token_id).sum())), dtype=bool)
    else:
        left = image.stages[-1].kept if image.stages else image.kept
        dropped = np.ones(image.n_visual, dtype=bool)
        dropped[left.cpu().numpy()] = False
        dropped = dropped.reshape(image.grid[1:])
    answer = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    resized = processor.image_processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")
    pixels = resized["pixel_values"][0].transpose(1, 2, 0).clip(0, 255).astype(np.uint8)
    box = style_of(model.config, processor).boxes.fractions(answer, (pixels.shape[1], pixels.shape[0]))
    return Look(configuration.label, pixels, dropped, answer, box)


def draw(axes: Axes, look: Look, true_box: Box | None = None) -> None:
    """Draw kept patches clear and dropped ones dark. Boxes are fractions of the picture's width and height."""
    height, width = look.pixels.shape[:2]
    axes.imshow(look.pixels, extent=(0, width, height, 0))
    darkness = np.zeros((*look.dropped.shape, 4))
    darkness[..., 3] = 0.72 * look.dropped
    axes.imshow(darkness, extent=(0, width, height, 0), interpolation="nearest")
    for name, box in ("true box", true_box), ("answered box", look.box):
        if box is not None:
            x1, y1, x2, y2 = within((0.0, 0.0, float(width), float(height)), box)
            color, dashes = STYLES[name]
            outline: list[AbstractPathEffect] = [withStroke(linewidth=5, foreground="black")]
            box = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=color, ls=dashes, lw=2.5)
            axes.add_patch(box).set_path_effects(outline)
    overlap = f" (IoU {iou(look.box, true_box):.2f})" if look.box and true_box else ""
    answer = textwrap.shorten(look.answer, 30, placeholder=" …")
    axes.set_title(f"{look.label}\n{look.n_kept} of {look.dropped.size} visual tokens\n{answer}{overlap}", fontsize=12)
    axes.set_axis_off()
