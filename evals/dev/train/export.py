"""Export a checkpoint of a run, which may still be training, in Hugging Face's layout, and query it without tokenprune:
`python -m tokenprune.evals.dev.train.export --run DIR --sources DIR --output DIR`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from tokenprune.evals.dev.train import state
from tokenprune.evals.dev.train.batches.pack import Packer
from tokenprune.evals.dev.train.losses import Trainee
from tokenprune.evals.dev.train.scenes.grids import WEIGHTS
from tokenprune.evals.dev.train.start.llava import export
from tokenprune.evals.dev.train.start.model import build_like, build_processor
from tokenprune.evals.dev.train.start.tower import tower_and_positions
from tokenprune.evals.dev.train.vocabulary.nouns import nouns
from tokenprune.evals.dev.train.vocabulary.words import SIGN_WORDS

LOG, LIMIT = "training_log.jsonl", 100 * 2**20
SIZES = (112, 112), (224, 224), (336, 336), (224, 336), (168, 112)  # height, width in px

#: A user's code, for an interpreter that has not loaded tokenprune.
ASK = """
import json, sys
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

folder, image, question, sizes = sys.argv[1], Image.open(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
model = LlavaForConditionalGeneration.from_pretrained(folder, dtype="float32")
processor = AutoProcessor.from_pretrained(folder)
messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
for height, width in sizes:
    inputs = processor(images=image, text=prompt, size={"height": height, "width": width}, return_tensors="pt")
    answer = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    tokens = int((inputs["input_ids"] == model.config.image_token_index).sum())
    print(json.dumps([height, width, tokens, processor.decode(answer, skip_special_tokens=True)]))
assert not any(name.startswith("tokenprune") for name in sys.modules)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--sources", type=Path, required=True, help="sources folder of the training")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--image", type=Path, help="an image to ask about afterwards, with plain transformers")
    parser.add_argument("--question", default="what is this?")
    args = parser.parse_args()
    step = export_newest(args.run, args.sources, args.output)
    print(f"{args.output}: step {step}, {size_of(args.output) / 2**20:.1f} MiB")
    if args.image is not None:
        for height, width, tokens, answer in ask_without_tokenprune(args.output, args.image, args.question):
            print(f"{height} x {width} px, {tokens} visual tokens: {answer}")


def export_newest(run: Path, sources: Path, output: Path) -> int:
    """Write the newest checkpoint of stage two, and the run's log, to `output`; return its step.

    The run is only read. Raises ValueError if it has not reached stage two, or if the model is too large to be bundled.
    """
    saved = state.latest(run)
    if saved is None or saved["stage"] != 2:
        raise ValueError(f"{run}: no checkpoint of stage two, whose files are called state-2-*.pt")
    model, processor = restore(saved, sources)
    shutil.rmtree(output, ignore_errors=True)
    export(model, processor, output)
    shutil.copy(run / "log.jsonl", output / LOG)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    patch_steps = max((row["step"] for row in rows if row.get("stage") == 1), default=0)
    card = model_card(model, processor, patch_steps, saved["step"])
    (output / "README.md").write_text(card, encoding="utf-8")
    if size_of(output) > LIMIT:
        raise ValueError(f"{output}: {size_of(output) / 2**20:.0f} MiB, and 100 may be bundled")
    return saved["step"]


def restore(saved: dict[str, Any], sources: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Build a checkpoint's model, new or grown, and its processor."""
    processor = build_processor()
    tower, _ = tower_and_positions(sources)
    model = build_like(saved["trainee"], tower, processor)
    trainee = Trainee(model, Packer(processor).head, processor.tokenizer.convert_tokens_to_ids("00"))
    model.model.vision_tower.load_state_dict(saved["tower"])
    trainee.load_state_dict(saved["trainee"])
    return model.eval().requires_grad_(False), processor


def model_card(model: LlavaForConditionalGeneration, processor: LlavaProcessor, patch_steps: int, step: int) -> str:
    """Return the model card, filled in with facts about the model and its training.

    patch_steps, step: the logged steps of stage one, and the steps of stage two.
    """
    shape: Any = model.config.text_config
    return (Path(__file__).with_name("MODEL_CARD.md").read_text(encoding="utf-8")).format(
        parameters=f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f}",
        grids=", ".join(f"{rows} x {columns}" for rows, columns in WEIGHTS),
        layers=shape.num_hidden_layers,
        width=shape.hidden_size,
        heads=shape.num_attention_heads,
        words=len(processor.tokenizer),
        nouns=len(nouns()),
        signs=len(SIGN_WORDS),
        patch_steps=f"{round(patch_steps, -2):,}",
        step=f"{step:,}",
    )


def ask_without_tokenprune(folder: Path, image: Path, question: str) -> list[tuple[int, int, int, str]]:
    """Return the height, width, number of visual tokens and answer at each of SIZES."""
    command = [sys.executable, "-c", ASK, str(folder.resolve()), str(image.resolve()), question, json.dumps(SIZES)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, env=_bare_environment())
    if run.returncode:
        raise RuntimeError(f"{folder}: plain transformers cannot run this model\n{run.stderr[-2000:]}")
    return [tuple(json.loads(line)) for line in run.stdout.splitlines()]


def _bare_environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": str(torch.get_num_threads())}


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
