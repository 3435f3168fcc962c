"""Prompts in a processor's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.files.evals import sample_image, saved, tiny_processor
from helpers.tiny import IMAGE, PAD, PATCH, SIDE, tiny_llava

from tokenprune import UnsupportedError
from tokenprune.evals.harness.model import HarnessModel
from tokenprune.prompts import chat_prompt, encode_chat, user_prompt

N_VISUAL = (SIDE // PATCH) ** 2


@pytest.mark.parametrize("n_images", [0, 1, 2])
def test_a_question_stands_after_its_images(n_images: int) -> None:
    images = "<image> " * n_images
    assert chat_prompt(tiny_processor(), "05 06", n_images) == f"user : {images}05 06 assistant :"


def test_what_a_user_says_keeps_its_order() -> None:
    content = [{"type": "text", "text": "05"}, {"type": "image"}, {"type": "text", "text": "06"}]
    assert user_prompt(tiny_processor(), content) == "user : 05 <image> 06 assistant :"


def thinks(processor: Any, name: str) -> None:
    """Make its template write 07 before an answer, and then 08 if `name` is false, which disables thinking."""
    begin = f"{{% if {name} is defined and {name} is false %}} 07 08 {{% else %}} 07 {{% endif %}}"
    processor.chat_template += f"{{% if add_generation_prompt %}}{begin}{{% endif %}}"


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_a_model_that_thinks_is_asked_for_its_answer(name: str) -> None:
    """Otherwise its answer would be the beginning of its thoughts, and count as wrong."""
    processor: Any = tiny_processor()
    thinks(processor, name)
    assert chat_prompt(processor, "05").split()[-3:] == [":", "07", "08"]
    ids = encode_chat(processor, [[sample_image()]], ["05"])["input_ids"][0].tolist()
    assert processor.tokenizer.convert_ids_to_tokens(ids[-2:]) == ["07", "08"]


def test_a_harness_asks_it_for_its_answer(tmp_path: Path) -> None:
    model, processor = saved(tiny_llava(), tmp_path / "model"), tiny_processor()
    thinks(processor, "enable_thinking")
    processor.save_pretrained(model)
    asked = HarnessModel(model, dtype="float32", device="cpu")
    content = [{"type": "image", "image": sample_image()}, {"type": "text", "text": "05"}]
    ids = asked._encoded([[{"role": "user", "content": content}]], [""])["input_ids"][0].tolist()
    assert asked.processor.tokenizer.convert_ids_to_tokens(ids[-2:]) == ["07", "08"]


def test_a_template_is_given_nothing_that_it_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise transformers would warn about every question."""
    monkeypatch.setattr("transformers.processing_utils.logger.warning", lambda *said: pytest.fail(str(said)))
    chat_prompt(tiny_processor(), "05")


@pytest.mark.parametrize("template", [None, ""])
def test_a_processor_without_a_template_is_refused(template: str | None) -> None:
    processor: Any = tiny_processor()
    processor.chat_template = template
    with pytest.raises(UnsupportedError, match=r"LlavaProcessor has no chat template, .* Write one to chat_template"):
        chat_prompt(processor, "05")


def test_answers_of_a_batch_begin_in_the_same_column() -> None:
    """A prompt with two images and a long question, and one with one image, padded on the left."""
    images = [[sample_image()], [sample_image(), sample_image()]]
    inputs = encode_chat(tiny_processor(), images, ["05", "05 06 07"])
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    assert (ids == IMAGE).sum(1).tolist() == [N_VISUAL, 2 * N_VISUAL]
    assert torch.equal(ids == PAD, ~mask)
    assert mask[:, -1].all()
    assert mask.int().diff(dim=1).min() >= 0  # no prompt is padded in the middle
    assert inputs["pixel_values"].shape[0] == 3


def test_options_are_the_processors() -> None:
    size = {"height": SIDE // 2, "width": SIDE // 2}
    inputs = encode_chat(tiny_processor(), [[sample_image()]], ["05"], size=size)
    assert (inputs["input_ids"] == IMAGE).sum() == N_VISUAL / 4


def test_a_prompt_has_no_labels() -> None:
    """PaliGemma's processor adds labels to every prompt, for which its model would compute a loss."""

    class Labelling:
        chat_template = "{{ messages }}"

        def apply_chat_template(self, turns: Sequence[Any], **_: object) -> str:
            return turns[0]["content"][-1]["text"]

        def __call__(self, text: Sequence[str], **_: object) -> dict[str, Any]:
            return {"input_ids": list(text), "labels": list(text)}

    assert encode_chat(Labelling(), [[], []], ["05", "06"]) == {"input_ids": ["05", "06"]}
