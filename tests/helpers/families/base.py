"""What tests need to know about a model family: a tiny model, prompts for it, and its exact oracle."""

import json
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, LlavaForConditionalGeneration

#: The name of the cache in arguments and outputs, which changed in transformers 5.2x.
CACHE = "cache" if "cache" in signature(LlavaForConditionalGeneration.forward).parameters else "past_key_values"
#: Whether `generate` encodes the images before it calls the model.
ENCODES_FIRST = "mm_encoder_outputs" in signature(LlavaForConditionalGeneration.forward).parameters
#: Whether transformers itself handles later images of Gemma 3 and images in chunked prefill right, as 5.24 does and
#: 5.20 does not. The cache was renamed in between.
RECENT = CACHE == "cache"
PAD, BOS, IMAGE, EOS, VIDEO, START, END, BREAK, VOCAB = 0, 1, 90, 91, 92, 93, 94, 95, 96
PATCH = 4  # pixels
WEIGHTS = 0.15  # the standard deviation of a tiny model's weights
CONFIGS = Path(__file__).with_name("configs")

#: transformers' error for a class whose `generate` takes no embeddings.
NO_EMBEDS = (ValueError, "doesn't have its forwarding implemented")
#: Older versions' error for images together with embeddings; the error if transformers itself answers wrongly.
PIXELS_OR_EMBEDS = (ValueError, "You cannot specify both .*pixel_values.* and inputs_embeds")
DIFFER = (AssertionError, "logits differ")

Size = tuple[int, ...]
ImageInputs = dict[str, Tensor]  # the tensors of one image or video, for `join`


class Inputs(dict[str, Any]):
    """A model's inputs, which also know their images and videos one by one, as `join` takes them."""

    def __init__(self, inputs: dict[str, Any], images: list[ImageInputs]) -> None:
        super().__init__(inputs)
        self.images = images


class Family:
    """One Hugging Face class with one kind of tower and decoder, whose config.json is `configs/NAME.json`.

    settings: replace those in config.json.
    class_name: the class that an adapter is registered for.
    sizes, video_sizes: (height, width) and (frames, height, width) of the images and videos, used in turn, so that
        those of a prompt differ if the family allows it. Without video_sizes, there are no videos.
    mixes: whether one call may have both.
    volatile: attributes in which transformers itself keeps state between calls.
    cannot: modes of the contract matrix in which transformers fails without a patch -> the exception, an AssertionError
        that "logits differ" if it answers wrongly. "rows": the result of a row depends on the rows above it.
    numbered: whether position IDs make any difference.
    typed: whether its inputs say which tokens belong to images and videos.
    refused: the message of patch()'s UnsupportedError; None if the model is supported.
    """

    sizes: tuple[Size, ...]
    video_sizes: tuple[Size, ...] = ()
    mixes: bool = True
    volatile: tuple[str, ...] = ()
    numbered: bool = True
    typed: bool = False
    refused: str | None = None
    cannot: dict[str, tuple[type[Exception] | tuple[type[Exception], ...], str]]

    def __init__(self, name: str, **settings: Any) -> None:
        self.name, self.settings, self.cannot = name, settings, {}
        (self.class_name,) = self.stored["architectures"]

    # The model.

    @property
    def stored(self) -> dict[str, Any]:
        return {**json.loads((CONFIGS / f"{self.name}.json").read_text()), **self.settings}

    def config(self) -> Any:
        return AutoConfig.for_model(**{name: value for name, value in self.stored.items() if name != "architectures"})

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        """Return a float32 model whose attention is far from uniform, and which never ends an answer early.

        n_layers: layers of its language model, instead of the configuration's two.
        """
        torch.manual_seed(seed)
        config = self.config()
        if n_layers is not None:
            text = config.get_text_config()
            text.num_hidden_layers = n_layers
            for name in ("layer_types", "mlp_layer_types"):
                if kinds := getattr(text, name, None):
                    setattr(text, name, [kinds[i % len(kinds)] for i in range(n_layers)])
        config._attn_implementation = attention
        model: Any = getattr(transformers, self.class_name)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=WEIGHTS)
        self.set_answers(getattr(model, "generation_config", None), config)
        return model

    def set_answers(self, settings: Any, config: Any) -> None:
        """Change a new model's settings of `generate` so that it never ends an answer early."""
        settings.eos_token_id = None
        settings.pad_token_id = PAD
        # The oracle would treat placeholders and markers in answers as text.
        more = range(VOCAB, config.get_text_config().vocab_size)
        settings.suppress_tokens = [IMAGE, VIDEO, START, END, BREAK, *more]

    # Prompts.

    def block(self, size: Size) -> list[int]:
        """Return the IDs of one image or, with three sizes, one video: placeholders, and markers around and between."""
        raise NotImplementedError

    def blocks(self, sizes: list[Size]) -> list[list[int]]:
        """Return the IDs of all images and videos of one row."""
        return [self.block(size) for size in sizes]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        """Return the tensors of one image or video, as `join` expects them."""
        raise NotImplementedError

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        """Return the model's inputs for these images and videos of all rows."""
        keys = sorted({key for image in images for key in image})
        return {key: torch.cat([image[key] for image in images if key in image]) for key in keys}

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        """Return the other inputs with one entry per prompt token."""
        return {"mm_token_type_ids": ((ids == IMAGE) + 2 * (ids == VIDEO)).int()} if self.typed else {}

    def answer_types(self, types: Tensor) -> Tensor:
        """Return `token_types` for answer tokens."""
        return torch.zeros_like(types)

    def prompt(
        self,
        images_per_row: list[int],
        texts: list[int] | None = None,
        seed: int = 1,
        padding: str = "left",
        videos_per_row: list[int] | None = None,
        sizes: list[Size] | None = None,
    ) -> Inputs:
        """Return a batch in which each row is text, followed by images and videos with text after each.

        texts: the number of tokens of every text in each row.
        sizes: sizes of the images, used in turn instead of the family's own.
        """
        generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
        videos_per_row = videos_per_row or [0] * len(images_per_row)
        texts = texts or [3 + 2 * row for row in range(len(images_per_row))]
        rows, images = [], []
        turns = {2: 0, 3: 0}
        for n_images, n_videos, n_text in zip(images_per_row, videos_per_row, texts, strict=True):
            row = torch.randint(2, IMAGE, (n_text,), generator=generator).tolist()
            chosen = []
            for kind in [2] * n_images + [3] * n_videos:
                choices = self.video_sizes if kind == 3 else sizes or self.sizes
                chosen.append(choices[turns[kind] % len(choices)])
                turns[kind] += 1
            for size, block in zip(chosen, self.blocks(chosen), strict=True):
                images.append(self.image_inputs(size, generator))
                row += block + torch.randint(2, IMAGE, (n_text,), generator=generator).tolist()
            rows.append(row)
        length = max(map(len, rows))
        pads = [[PAD] * (length - len(row)) for row in rows]
        left = padding == "left"
        ids = torch.tensor([pad + row if left else row + pad for row, pad in zip(rows, pads, strict=True)])
        per_row = [i + v for i, v in zip(images_per_row, videos_per_row, strict=True)]
        text = {"input_ids": ids, "attention_mask": (ids != PAD).long(), **self.token_types(ids)}
        return Inputs({**text, **(self.join(images, per_row) if images else {})}, images)

    def rows(self, inputs: Inputs, rows: list[int], per_row: list[int]) -> Inputs:
        """Return some rows of a batch in any order and number, each with its own images."""
        starts = [sum(per_row[:row]) for row in range(len(per_row))]
        chosen = [inputs.images[i] for row in rows for i in range(starts[row], starts[row] + per_row[row])]
        return self._with(inputs, torch.tensor(rows), chosen, [per_row[row] for row in rows])

    def repeated(self, inputs: Inputs, n: int, per_row: list[int]) -> Inputs:
        """Return the batch as generate repeats it for n answers per row."""
        rows = [row for row in range(len(per_row)) for _ in range(n)]
        if self.repeats_rows():
            return self.rows(inputs, rows, per_row)
        images = [image for image in inputs.images for _ in range(n)]
        return self._with(inputs, torch.tensor(rows), images, [per_row[row] for row in rows])

    def repeats_rows(self) -> bool:
        """Return whether transformers keeps the images of a row together when it repeats the row, instead of repeating
        each image separately."""
        return ENCODES_FIRST

    def _with(self, inputs: Inputs, rows: Tensor, images: list[ImageInputs], per_row: list[int]) -> Inputs:
        along = {"input_ids", "attention_mask", *self.token_types(inputs["input_ids"])}
        texts = {key: value[rows] for key, value in inputs.items() if key in along}
        return Inputs({**texts, **(self.join(images, per_row) if images else {})}, images)

    def continued(self, inputs: dict[str, Any], answers: Tensor) -> Inputs:
        """Return the whole conversation: a prompt and its answers."""
        out = Inputs(inputs, getattr(inputs, "images", []))
        out["input_ids"] = torch.cat([inputs["input_ids"], answers], 1)
        out["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(answers)], 1)
        for key in self.token_types(inputs["input_ids"]):
            new = inputs[key].new_zeros(answers.shape)
            out[key] = torch.cat([inputs[key], self.answer_types(new)], 1)
        return out

    def visual(self, ids: Tensor) -> Tensor:
        """Return which columns are visual tokens."""
        return (ids == IMAGE) | (ids == VIDEO)

    def expectation(self, mode: str) -> AbstractContextManager[Any]:
        """Return a context for a run of a mode, in which the exception of `cannot` must occur."""
        return pytest.raises(self.cannot[mode][0], match=self.cannot[mode][1]) if mode in self.cannot else nullcontext()

    # The oracle.

    def position_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return the position IDs of the unpruned sequence, not counting padding."""
        return (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return transformers' position IDs for a prompt that is given as embeddings instead of IDs."""
        return self.position_ids(model, inputs)

    def repeated_ids(self, model: Any, inputs: dict[str, Any], answers: Tensor) -> Tensor | None:
        """Return `generate`'s position IDs for several answers per row; None if it numbers the repeated batch.

        answers: (batch * answers per row, steps)
        """
        return None

    def compact_ids(self, model: Any, inputs: dict[str, Any], dropped: Tensor) -> Tensor:
        """Return the position IDs of what is left with position_ids="compact"."""
        return self.position_ids(model, inputs) - (dropped.long().cumsum(1) - dropped.long())

    def seen(self, inputs: dict[str, Any]) -> Tensor:
        """Return (batch or 1, length, length) bool: who attends to whom in the unpruned sequence, ignoring padding."""
        length = inputs["input_ids"].shape[1]
        return torch.ones(1, length, length, dtype=torch.bool).tril()

    def mask(self, inputs: dict[str, Any], dropped: Tensor) -> Any:
        """Return the language model's attention mask that hides `dropped` columns."""
        return additive(self.seen(inputs), inputs["attention_mask"].bool() & ~dropped)

    def oracle(self, model: Any, inputs: dict[str, Any], dropped: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Return the logits (batch, length, vocabulary) of one uncached forward of the unpatched model over the whole
        conversation, in which no query attends to a dropped column."""
        given = {**inputs, "attention_mask": self.mask(inputs, dropped)}
        ids = self.position_ids(model, inputs) if position_ids is None else position_ids
        with torch.no_grad():
            return model(**given, position_ids=ids, use_cache=False).logits


def additive(seen: Tensor, keys: Tensor) -> Tensor:
    """Return `seen` as a float mask (batch, 1, length, length) in which only `keys` can be attended to."""
    allowed = seen & keys[:, None]
    # The rows of padding and dropped tokens are never read, but softmax needs one entry.
    allowed = allowed | torch.eye(keys.shape[1], dtype=torch.bool)
    return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]


def decoder(**settings: Any) -> Any:
    """Return the settings that the configurations of all language models share."""
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        **settings,
    }


def tower(side: int, **settings: Any) -> Any:
    """Return the settings that configurations of square vision towers share. `side` is in pixels."""
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": side,
        "patch_size": PATCH,
        **settings,
    }
