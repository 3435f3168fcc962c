"""Prompts about images in a processor's own chat template, as `Zoom` and evaluations use them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokenprune.errors import UnsupportedError

#: The variables that switch thinking off in chat templates of thinking models: Qwen3.5 and GLM-4.6V, and Kimi K2.5.
#: Otherwise an answer would be cut off long before the model has finished thinking.
NO_THINKING = {"enable_thinking": False, "thinking": False}


def chat_prompt(processor: Any, question: str, n_images: int = 1) -> str:
    """The prompt for a question after its images, up to where the answer begins."""
    return user_prompt(processor, [{"type": "image"}] * n_images + [{"type": "text", "text": question}])


def user_prompt(processor: Any, content: Sequence[Mapping[str, Any]]) -> str:
    """The prompt for one user turn."""
    return apply_chat_template(processor, [{"role": "user", "content": list(content)}])


def apply_chat_template(processor: Any, turns: Sequence[Mapping[str, Any]]) -> str:
    """A chat, up to where the next answer begins, with thinking switched off. Raises UnsupportedError if the processor
    has no chat template, as for models that are not trained for chats."""
    template = getattr(processor, "chat_template", True)  # a text, or texts by name
    if not template:
        raise UnsupportedError(
            f"{type(processor).__name__} has no chat template, which says how to prompt its model. Write one to "
            f"chat_template.jinja in the model's folder, or to processor.chat_template."
        )
    read = {name: value for name, value in NO_THINKING.items() if re.search(rf"\b{name}\b", str(template))}
    return processor.apply_chat_template(list(turns), add_generation_prompt=True, **read)  # it warns of others


def tokenizer_options(processor: Any, prompt: str) -> dict[str, bool]:
    """Options for tokenizing a prompt in the chat template. One that already begins with the BOS token, as in Gemma's
    and Llama 4's templates, gets no second one, as in transformers' `apply_chat_template(tokenize=True)`."""
    begin = getattr(getattr(processor, "tokenizer", None), "bos_token", None)
    return {"add_special_tokens": False} if begin and prompt.startswith(begin) else {}


def encode_chat(processor: Any, images: Sequence[Sequence[Any]], questions: Sequence[str], **options: Any) -> Any:
    """The model's inputs for a batch, padded on the left so that all answers begin in the same column.

    images: the PIL images of each question.
    """
    prompts = [chat_prompt(processor, question, len(own)) for question, own in zip(questions, images, strict=True)]
    inputs = processor(
        images=[list(own) for own in images],
        text=prompts,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        **tokenizer_options(processor, prompts[0]),
        **options,
    )
    inputs.pop("labels", None)  # PaliGemma's processor makes some for every prompt, all of them ignored
    return inputs
