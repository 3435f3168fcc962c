"""Prompts in a processor's template, and how answers begin."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.files.evals import brief, sample_image, saved, tiny_processor, write_vqav2
from helpers.models.video_models import saved_qwen
from helpers.simulated.openai_server import Answering, serving
from helpers.tiny import IMAGE, PAD, PATCH, SIDE, tiny_llava
from tokenizers.processors import TemplateProcessing

from tokenprune import UnsupportedError
from tokenprune.evals.adapt.examples import Example
from tokenprune.evals.adapt.rows import Collator, Row
from tokenprune.evals.harness.model import HarnessModel
from tokenprune.evals.models.loading import load_processor
from tokenprune.evals.models.video_prompts import encode_clips
from tokenprune.evals.reading.videos import Clip
from tokenprune.evals.run.engines.engine import Prompt
from tokenprune.evals.run.engines.offline import Offline
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.setups import Unpruned
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks import TASKS
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


# A prompt has exactly one beginning-of-text token, even if the chat template writes it.


BEGIN = "87"


def beginning(processor: Any, in_template: bool = True) -> Any:
    """Return the processor with a tokenizer that puts BEGIN before texts and, if `in_template`, a template that does
    too."""
    tokenizer = processor.tokenizer
    token = BEGIN if BEGIN in tokenizer.get_vocab() else tokenizer.convert_ids_to_tokens(5)
    tokenizer.bos_token = token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, tokenizer.bos_token_id)]
    )
    if in_template:
        processor.chat_template = f"{{{{ bos_token }}}} {processor.chat_template}"
    return processor


def begins(processor: Any, ids: Any) -> bool:
    """Return whether the token comes first after padding, and nowhere else."""
    tokenizer = processor.tokenizer
    real = [int(one) for one in ids if int(one) != tokenizer.pad_token_id]
    return real.index(tokenizer.bos_token_id) == 0 and real.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("in_template", [True, False])
def test_an_image_is_asked_about(in_template: bool) -> None:
    processor = beginning(tiny_processor(), in_template)
    inputs = encode_chat(processor, [[sample_image()]] * 2, ["05", "05 06"])
    assert all(begins(processor, ids) for ids in inputs["input_ids"])
    chat = [{"type": "image", "image": sample_image()}, {"type": "text", "text": "05 06"}]
    turns = [{"role": "user", "content": chat}]
    theirs = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert inputs["input_ids"][1].tolist() == list(theirs["input_ids"][0]) or not in_template


def test_a_video_is_asked_about(tmp_path: Path) -> None:
    processor = beginning(load_processor(saved_qwen(tmp_path / "model"))[1])
    clip = Clip([sample_image()] * 4, [0.5, 1.5, 2.5, 3.5], 4.0)
    assert begins(processor, encode_clips(processor, [clip], ["05"])["input_ids"][0])


def test_questions_of_a_row_are_learnt(tmp_path: Path) -> None:
    """The prompts of a row share the beginning, so it occurs once."""
    write_vqav2(tmp_path, 2)
    questions = TASKS["vqa"].load(tmp_path)
    processor = beginning(tiny_processor())
    collator = Collator(processor, torch.float32)
    together = collator([Row(tuple(Example(one, "05") for one in questions))])
    assert begins(processor, together["input_ids"][0])
    alone = collator([Row((Example(one, "05"),)) for one in questions])
    assert all(begins(processor, ids) for ids in alone["input_ids"])
    n_alone = int(alone["attention_mask"].sum())
    n_shared = n_alone - together["input_ids"].shape[1]
    assert together["input_ids"][0, :n_shared].equal(alone["input_ids"][0, :n_shared])


def test_a_harness_asks(tmp_path: Path) -> None:
    model = saved(tiny_llava(), tmp_path / "model")
    beginning(tiny_processor()).save_pretrained(model)
    asked = HarnessModel(model, dtype="float32", device="cpu")
    content = [{"type": "image", "image": sample_image()}, {"type": "text", "text": "05"}]
    inputs = asked._encoded([[{"role": "user", "content": content}]], [""])
    assert begins(asked.processor, inputs["input_ids"][0])


def test_a_server_is_asked(tmp_path: Path) -> None:
    """The visual tokens left are computed correctly from the length of the prompt here."""
    model = saved(tiny_llava(), tmp_path / "model")
    processor = beginning(tiny_processor())
    processor.save_pretrained(model)
    write_vqav2(tmp_path / "data", 2)
    with serving(Answering(brief(tiny_llava()), processor, {"strategy": "fopru", "keep_ratio": 0.25})) as url:
        evaluate(model, data=tmp_path / "data", output=tmp_path / "run", engine=url, tasks=["vqa"])
    assert {answer.error for answer in RunFolder(tmp_path / "run").answers().values()} == {None}


@pytest.mark.parametrize("special", [True, False])
def test_vllm_is_asked_in_this_process(tmp_path: Path, special: bool) -> None:
    given: list[dict[str, Any]] = []

    def generate(prompts: list[Any], *args: Any, **options: Any) -> list[Any]:
        given.append(options)
        return []

    engine = Offline(saved(tiny_llava(), tmp_path / "model"), "auto", {})
    engine._llm = SimpleNamespace(generate=generate, get_default_sampling_params=SimpleNamespace)
    engine.ask([Prompt([], "", "a chat", 8, special)], Unpruned())
    assert given[0]["tokenization_kwargs"] == {"add_special_tokens": special}  # Gemma 4 has a different default
