"""What a Hugging Face processor makes of pictures and a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenprune.errors import SettingError


def input_side(processor: Any) -> int:
    """The side, in pixels, of the square that the processor makes of a square picture.

    Raises SettingError where it has no fixed size.
    """
    image_processor = processor.image_processor
    size = dict(
        image_processor.crop_size if getattr(image_processor, "do_center_crop", False) else image_processor.size
    )
    sides = {size[name] for name in ("height", "width", "shortest_edge") if size.get(name) is not None}
    if len(sides) != 1 or size.get("longest_edge") is not None:
        raise SettingError(
            f"{type(image_processor).__name__} makes squares of no fixed size, so say how large a tile is to be: "
            f"Zoom(tile=448)."
        )
    return int(sides.pop())


def ask(processor: Any, rows: Sequence[Sequence[Any]], question: str) -> Any:
    """The inputs of a batch that asks one question of each row of PIL pictures, by the processor's chat template."""
    text = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}] * len(row) + [{"type": "text", "text": question}]}],
            add_generation_prompt=True,
        )
        for row in rows
    ]
    return processor(images=[list(row) for row in rows], text=text, return_tensors="pt", padding=True)
