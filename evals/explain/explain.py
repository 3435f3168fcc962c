"""Ask one question about one image or video under several setups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

import tokenprune
from tokenprune.adapters.devices import input_device
from tokenprune.errors import DataError, UnsupportedError
from tokenprune.evals.bench.measuring import ttft_ratios
from tokenprune.evals.boxes import Box, iou
from tokenprune.evals.explain.canvas import canvas, clip_canvas, in_tiles, shrunk, tiles_of
from tokenprune.evals.explain.outcomes import Explanation, Kept, Outcome
from tokenprune.evals.models.greedy import generate_greedily
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.models.video_prompts import adapter_for_clips, encode_clips, placeholder_ids
from tokenprune.evals.reading.videos import Clip
from tokenprune.evals.run.costs import executed_layers, has_grid, kv_cache_bytes
from tokenprune.evals.run.downsample import shrunk_grid
from tokenprune.evals.run.setups import Downsampled, Pruned, Setup, Unpruned, read_by
from tokenprune.patching.pruning import check_unpatched
from tokenprune.prompts import chat_prompt, encode_chat
from tokenprune.tokens import Layout

MAX_NEW_TOKENS = 64
ROUNDS = 3


def explain(
    model: Any,
    processor: Any,
    image: Image.Image | Clip,
    question: str,
    compared: Sequence[Setup],
    *,
    true_box: Box | None = None,
    name: str = "",
    rounds: int = ROUNDS,
) -> Explanation:
    """Ask `model` one question about one image or video, unpruned and under each setup.

    true_box: in pixels of the image; a video has none. name: the model's. rounds: of timing; 0 skips it.

    Raises DataError or UnsupportedError for an image or question that cannot be asked, and SettingError for a setup
    that changes nothing, a smaller video, or a patched model.
    """
    check_unpatched(model)
    for setup in compared:
        if not isinstance(setup, Pruned) and (isinstance(image, Clip) or not isinstance(setup, Downsampled)):
            raise tokenprune.SettingError(
                f"{setup.label} prunes nothing, so there is nothing to show. Measure it: tokenprune eval"
            )
    if isinstance(image, Clip):
        return _of_clip(model, processor, image, question, compared, name, rounds)
    inputs = _encoded(model, processor, image, question)
    style = style_of(model.config, processor)
    with tokenprune.probe(model) as seen:
        (probed,) = seen.run(**inputs)
    layout = probed.tokens.layout
    tiles = tiles_of(processor, image, question) if in_tiles(layout) else ()
    shown = canvas(image, layout if has_grid(model) else None, style.view(image.size), tiles)
    outcomes = []
    for setup in (Unpruned(), *compared):
        own, smaller = inputs, None
        if isinstance(setup, Downsampled):
            own = _encoded(model, processor, image, question, **setup.processor_options(processor))
            smaller = shrunk(shown, shrunk_grid(processor, setup.keep_ratio), processor.patch_size)
        kept, answer, n_bytes, _ = _asked(model, processor, setup, own)
        if smaller is not None:
            kept = Kept.first(kept.n_kept, setup.n_visual(processor, kept.n_kept))
        box = style.read(answer, image.size)
        overlap = None if true_box is None else iou(box, true_box) if box else 0.0
        outcomes.append(Outcome(setup, kept, answer, box, overlap, n_bytes, canvas=smaller))
    outcomes = _timed(model, inputs, outcomes, compared, rounds)
    return Explanation(name, image, question, true_box, shown, outcomes)


def _of_clip(
    model: Any, processor: Any, clip: Clip, question: str, compared: Sequence[Setup], name: str, rounds: int
) -> Explanation:
    """The explanation of a video, with its frames side by side. Boxes in answers are not read, because nothing says
    which frame they are in."""
    compared = read_by(adapter_for_clips(model, processor), compared)
    _check_question(processor, question)
    inputs = encode_clips(processor, [clip], [question]).to(input_device(model), model.dtype)
    outcomes, layout = list[Outcome](), None
    for setup in (Unpruned(), *compared):
        kept, answer, n_bytes, reported = _asked(model, processor, setup, inputs)
        layout = layout or reported
        outcomes.append(Outcome(setup, kept, answer, None, None, n_bytes))
    if layout is None:
        raise tokenprune.SettingError("nothing is pruned, so there is nothing to show. Name a strategy")
    outcomes = _timed(model, inputs, outcomes, compared, rounds)
    return Explanation(name, clip.frames[0], question, None, clip_canvas(clip, layout), outcomes)


def _timed(model: Any, inputs: Any, outcomes: list[Outcome], compared: Sequence[Setup], rounds: int) -> list[Outcome]:
    """The outcomes with their times to first token, except of smaller images; unchanged if there are no rounds."""
    if not rounds:
        return outcomes
    pruned = [setup for setup in compared if isinstance(setup, Pruned)]
    ratios = dict(zip((setup.key for setup in pruned), ttft_ratios(model, inputs, pruned, rounds), strict=True))
    ratios[Unpruned().key] = 1.0
    return [replace(outcome, ttft=ratios.get(outcome.setup.key)) for outcome in outcomes]


def _check_question(processor: Any, question: str) -> None:
    """Raise DataError for a question that cannot be asked."""
    if processor.image_token in question:
        raise DataError(
            f"the question contains the placeholder {processor.image_token}, which the processor inserts itself; leave "
            f"it out"
        )


def _encoded(model: Any, processor: Any, image: Image.Image, question: str, **options: Any) -> Any:
    _check_question(processor, question)
    if chat_prompt(processor, question).split() == chat_prompt(processor, question, n_images=0).split():
        raise UnsupportedError(
            "this model's chat template leaves out the placeholder of the image, so the model would not see the image; "
            "correct chat_template.jinja"
        )
    try:
        inputs = encode_chat(processor, [[image]], [question], **options)
    except ValueError as error:  # of a shape that the model's processor does not take
        width, height = image.size
        raise DataError(
            f"the image of {width} x {height} px: {type(processor).__name__} refuses it: {error}"
        ) from error
    return inputs.to(input_device(model), model.dtype)


@torch.inference_mode()
def _asked(model: Any, processor: Any, setup: Setup, inputs: Any) -> tuple[Kept, str, int, Layout | None]:
    """The fate of the visual tokens, the answer, the size of the KV cache, and the layout of the visual tokens if
    anything is pruned."""
    with setup.patched(model) as handle:
        output = generate_greedily(model, inputs, MAX_NEW_TOKENS)
        layout = None
        if handle is None:
            placeholders = torch.tensor(placeholder_ids(model.config)).to(inputs["input_ids"])
            kept = Kept.all_tokens(int(torch.isin(inputs["input_ids"], placeholders).sum()))
        else:
            images = handle.report.images
            if len(images) > 1:
                raise UnsupportedError(
                    f"{type(model).__name__} takes this for {len(images)} images, each pruned by itself, which cannot "
                    f"be drawn as one. Measure it: tokenprune eval"
                )
            kept, layout = Kept.of(images[0], executed_layers(model, handle.report)), images[0].layout
        n_bytes = kv_cache_bytes(model, inputs)
    answer = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    return kept, answer, n_bytes, layout
