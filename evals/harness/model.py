"""A pruned model for evaluation harnesses: conversations in, answers and their costs out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import torch
from PIL import Image
from transformers import LogitsProcessorList

import tokenprune
from tokenprune.adapters.devices import input_device
from tokenprune.errors import SettingError, UnsupportedError, unknown
from tokenprune.evals.models.greedy import FirstLogits, check_logits
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.run.costs import VisualCost, visual_costs
from tokenprune.evals.run.setups import Unpruned
from tokenprune.prompts import apply_chat_template, tokenizer_options
from tokenprune.sequence.position_ids import PositionIds
from tokenprune.strategies.parsing import StrategySpec, read_settings

#: Turns of a chat as transformers writes them: {"role": ..., "content": [{"type": "image", "image": ...}, ...]}.
Conversation = Sequence[Mapping[str, Any]]

MAX_NEW_TOKENS = 1024
#: The sampling arguments of a harness that `generate` gets, if the harness asks for sampling.
SAMPLING = ("temperature", "top_p", "top_k")


@dataclass(frozen=True)
class Reply:
    """An answer. n_read: tokens of the prompt that entered the language model. n_written: tokens of the answer."""

    text: str
    n_read: int
    n_written: int
    cost: VisualCost


class HarnessModel:
    """A loaded model, patched for as long as it lives, with its processor.

    pretrained: a folder or a Hugging Face name.
    strategy: as for `patch`: a name, `module:Class` or a settings file; None leaves the model unpruned.
    settings: the strategy's, as on a command line: lists, negative numbers and None may be strings.

    Raises SettingError for an unknown name, before anything is loaded, and the errors of `patch`.
    """

    def __init__(
        self,
        pretrained: str,
        strategy: str | None = None,
        *,
        position_ids: PositionIds | None = None,
        dtype: str = "auto",
        device: str | None = None,
        device_map: str | None = None,
        **settings: Any,
    ) -> None:
        settings = _read_settings(strategy, settings)
        self.model, self.processor = load_model(str(pretrained), dtype, device, device_map)
        self.handle: tokenprune.PatchHandle | None = None
        if strategy:
            self.handle = tokenprune.patch(self.model, strategy, position_ids=position_ids, **settings)

    @torch.inference_mode()
    def answers(self, conversations: Sequence[Conversation], generation: Mapping[str, Any]) -> list[Reply]:
        """Return the answers to a batch, greedy unless `generation` says otherwise.

        It reads max_new_tokens, num_beams, do_sample, temperature, top_p, top_k and until from `generation`: a
        temperature above 0 samples unless do_sample is False, and an answer ends before the first string of `until`.
        A batch may mix conversations with and without images; they are asked separately.

        UnsupportedError if the model computes NaN instead of logits: the answer would be scored.
        """
        replies: dict[int, Reply] = {}
        for are_shown in (True, False):
            rows = [row for row, turns in enumerate(conversations) if bool(_images(turns)) is are_shown]
            if rows:
                asked = [conversations[row] for row in rows]
                replies.update(zip(rows, self._answers(asked, generation, are_shown), strict=True))
        return [replies[row] for row in range(len(conversations))]

    def _answers(
        self, conversations: Sequence[Conversation], generation: Mapping[str, Any], are_shown: bool
    ) -> list[Reply]:
        inputs = self._encoded(conversations, [""] * len(conversations))
        asked = _generation(generation)
        ids = self.model.generate(**inputs, **asked, logits_processor=LogitsProcessorList([FirstLogits()]))
        written = ids[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(written, skip_special_tokens=True)
        costs = [VisualCost(0, 0, 0.0)] * len(texts)
        if are_shown:
            n_beams = asked["num_beams"]  # each row is repeated for its beams, in the report too
            rows = inputs["input_ids"].repeat_interleave(n_beams, 0)
            costs = visual_costs(self.model, self.processor, Unpruned(), self.handle, rows)[::n_beams]
        n_read = inputs["attention_mask"].sum(1).tolist()
        return [
            Reply(_until(text, generation.get("until")).strip(), n - cost.n_visual + cost.n_kept, n_written, cost)
            for text, n, n_written, cost in zip(texts, n_read, self._lengths(written), costs, strict=True)
        ]

    @torch.inference_mode()
    def loss(self, conversation: Conversation, continuation: str) -> tuple[float, bool]:
        """Return the mean negative log-likelihood of `continuation`, and whether greedy decoding produces it.
        UnsupportedError as in `answers`."""
        prompt, whole = (self._encoded([conversation], [end]) for end in ("", continuation))
        n = whole["input_ids"].shape[1] - prompt["input_ids"].shape[1]
        if n < 1:
            raise SettingError(f"{continuation!r} has no tokens, so it has no likelihood")
        logits = self.model(**whole).logits[0, -n - 1 : -1].float()  # pruning shortens the sequence before them
        check_logits(logits)
        targets = whole["input_ids"][0, -n:].to(logits.device)
        return float(torch.nn.functional.cross_entropy(logits, targets)), bool((logits.argmax(-1) == targets).all())

    def _encoded(self, conversations: Sequence[Conversation], answers: Sequence[str]) -> Any:
        """Return the inputs for conversations and the beginnings of their answers, padded on the left."""
        images = [_images(conversation) for conversation in conversations]
        texts = [
            apply_chat_template(self.processor, conversation) + answer
            for conversation, answer in zip(conversations, answers, strict=True)
        ]
        options = tokenizer_options(self.processor, texts[0]) | ({"images": images} if any(images) else {})
        inputs = self.processor(text=texts, **options, padding=True, padding_side="left", return_tensors="pt")
        return inputs.to(input_device(self.model), self.model.dtype)

    def _lengths(self, written: torch.Tensor) -> list[int]:
        pad = self.processor.tokenizer.pad_token_id
        return (written != pad).sum(1).tolist()


def _read_settings(strategy: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with values of the types that the strategy has; raise SettingError for an unknown name."""
    own = [name for name in get_type_hints(HarnessModel.__init__) if name not in ("return", "settings")]
    if strategy is not None:
        return read_settings(StrategySpec.read(strategy).strategy_class, settings, f"{strategy}: ", also=own)
    for name in settings:
        raise SettingError(
            f"{unknown('argument', name, own)} Without a strategy nothing is pruned; write strategy=fopru, for example."
        )
    return {}


def _images(conversation: Conversation) -> list[Image.Image]:
    parts = [part for turn in conversation for part in turn["content"]]
    for part in parts:
        if part["type"] not in ("text", "image"):
            raise UnsupportedError(f"the task has {part['type']}, and this model takes images and text only")
    return [part["image"].convert("RGB") for part in parts if part["type"] == "image"]


def _generation(asked: Mapping[str, Any]) -> dict[str, Any]:
    samples = asked.get("temperature") != 0 and asked.get("do_sample", (asked.get("temperature") or 0) > 0)
    sampling = {name: asked[name] for name in SAMPLING if samples and asked.get(name) is not None}
    limits = {"max_new_tokens": asked.get("max_new_tokens") or MAX_NEW_TOKENS, "num_beams": asked.get("num_beams") or 1}
    return {"do_sample": bool(samples), **limits, **sampling}


def _until(text: str, ends: str | Sequence[str] | None) -> str:
    """Return the text before the first of the ends. Leading whitespace is stripped first and ends nothing."""
    text = text.lstrip()
    for end in [ends] if isinstance(ends, str) else ends or ():
        if end:
            text = text.split(end, 1)[0]
    return text
