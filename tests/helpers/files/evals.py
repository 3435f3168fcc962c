"""Small sets in the published file formats, and a processor for the tiny models."""

import json
import pickle
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

from helpers.tiny import IMAGE, PAD, PATCH, SIDE, VOCAB

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


def saved(model: Any, folder: Path) -> str:
    """Save a model that answers briefly, with its processor, and return the folder."""
    brief(model).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


def brief(model: Any) -> Any:
    """Make any multiple of 3 end the model's answers, which otherwise would all have the maximum length."""
    model.generation_config.eos_token_id = list(range(3, VOCAB, 3))
    return model


def word_tokenizer(ids: dict[str, int], between: Any = None, **special: Any) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words, with these IDs. between: splits a text into words."""
    tokenizer: Any = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = between or Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", **special)


def tiny_processor(**settings: Any) -> LlavaProcessor:
    """Return a processor for `tiny_llava("clip")`: numbers are words, everything else is unknown."""
    words = {"<pad>": PAD, "<unk>": 1, "<image>": IMAGE} | {f"{n:02d}": n + 2 for n in range(88)}
    words |= {f"w{n}": n for n in range(91, VOCAB)}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            **{
                "size": {"height": SIDE, "width": SIDE},
                "crop_size": {"height": SIDE, "width": SIDE},
                "do_center_crop": False,
            }
            | settings
        ),
        tokenizer=word_tokenizer(words, additional_special_tokens=["<image>"]),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def sample_image(size: tuple[int, int] = (60, 40), box: tuple[int, int, int, int] = (30, 10, 45, 30)) -> Image.Image:
    image = Image.new("RGB", size, "seagreen")
    ImageDraw.Draw(image).rectangle(box, fill="orange")
    return image


def write_refcoco(folder: Path, *, as_pickle: bool = True) -> None:
    """Write three refs with four sentences: one in train, two in val, one in testA."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images = []
    for image_id in (11, 12):
        name = f"COCO_train2014_{image_id:012d}.jpg"
        sample_image().save(folder / "images" / name)
        images.append({"id": image_id, "file_name": name, "width": 60, "height": 40, "license": 1})
    annotations = [
        {"id": 100, "image_id": 11, "category_id": 1, "bbox": [30, 10, 15, 20], "area": 300, "iscrowd": 0},
        {"id": 101, "image_id": 12, "category_id": 1, "bbox": [0, 0, 6.5, 4], "area": 26, "iscrowd": 0},
    ]
    instances = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]}
    (folder / "instances.json").write_text(json.dumps(instances))
    refs = [
        ref(1, "train", 11, 100, ["never asked"]),
        ref(2, "val", 11, 100, ["the orange box", "right thing"]),
        ref(3, "testA", 12, 101, ["corner"]),
    ]
    if as_pickle:
        (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=0))
    else:
        (folder / "refs(unc).json").write_text(json.dumps(refs))


def ref(ref_id: int, split: str, image_id: int, ann_id: int, sentences: list[str]) -> dict[str, Any]:
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "image_id": image_id,
        "category_id": 1,
        "split": split,
        "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",  # the real files have this suffix too
        "sent_ids": [10 * ref_id + n for n in range(len(sentences))],
        "sentences": [
            {"sent_id": 10 * ref_id + n, "raw": text.title(), "sent": text, "tokens": text.split()}
            for n, text in enumerate(sentences)
        ],
    }


def write_vqav2(folder: Path, n: int = 3) -> None:
    """Write `n` questions about one image with ten answers each: eight `yes`, two `no`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    sample_image().save(folder / "images" / "COCO_val2014_000000000042.jpg")
    head = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": "val2014"}
    questions = [{"image_id": 42, "question": f"Is it box {i}?", "question_id": 42000 + i} for i in range(n)]
    answers = [{"answer": "yes" if i < 8 else "no", "answer_confidence": "yes", "answer_id": i + 1} for i in range(10)]
    annotations = [
        {
            "question_type": "is it",
            "multiple_choice_answer": "yes",
            "answers": answers,
            "image_id": 42,
            "answer_type": "yes/no",
            "question_id": 42000 + i,
        }
        for i in range(n)
    ]
    name = "v2_OpenEnded_mscoco_val2014_questions.json"
    (folder / name).write_text(json.dumps(head | {"task_type": "Open-Ended", "questions": questions}))
    (folder / "v2_mscoco_val2014_annotations.json").write_text(json.dumps(head | {"annotations": annotations}))
