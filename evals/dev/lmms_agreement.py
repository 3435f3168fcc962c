"""Check that lmms-eval with our model and `tokenprune eval` give the same answers to the same bundled questions.

    python -m tokenprune.evals.dev.lmms_agreement LMMS_PYTHON

LMMS_PYTHON is the interpreter of an environment with lmms-eval and this package; see evals/harness/README.md. Writes
a local task with bundled questions for it, and runs its command offline. Exits with 1 if an answer differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from rich.console import Console
from rich.table import Table

from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.questions import limit_questions, load_questions
from tokenprune.evals.run.setups import Setup, Unpruned, make_setups
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.short_answers import ShortAnswer

#: A task of lmms-eval, in a folder of its own. `!function` refers to functions in utils.py.
TASK = """
task: bundled_scenes
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.images
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: {max_new_tokens}, temperature: 0, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
UTILS = """
from PIL import Image


def images(doc):
    return [Image.open(doc["image"]).convert("RGB")]
"""


def write_task(folder: Path, questions: Sequence[Question]) -> None:
    """Write the questions as a local task of lmms-eval, `bundled_scenes`."""
    docs = [
        {"image": str(question.images[0]), "question": question.text, "answer": question.answers[0]}
        for question in questions
        if isinstance(question, ShortAnswer)
    ]
    folder.mkdir()
    (folder / "data.json").write_text(json.dumps(docs))
    longest = max(question.max_new_tokens for question in questions)
    (folder / "bundled_scenes.yaml").write_text(TASK.format(data=folder / "data.json", max_new_tokens=longest))
    (folder / "utils.py").write_text(UTILS)


def theirs(
    python: str, folder: Path, model_args: str, batch_size: int, processes: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the results and the samples that lmms-eval's command writes to a new folder."""
    output = Path(tempfile.mkdtemp(dir=folder))
    launch = ["torch.distributed.run", "--nproc_per_node", str(processes), "-m"] if processes > 1 else []
    command = [python, "-m", *launch, "lmms_eval", "--model", "tokenprune", "--model_args", model_args]
    command += ["--tasks", "bundled_scenes", "--include_path", str(folder / "task"), "--batch_size", str(batch_size)]
    command += ["--log_samples", "--output_path", str(output), "--device", "cpu"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    subprocess.run(command, check=True, cwd=folder, env=os.environ | offline)
    (results,), (samples,) = output.rglob("*_results.json"), output.rglob("*_samples_bundled_scenes.jsonl")
    return json.loads(results.read_text()), [json.loads(line) for line in samples.read_text().splitlines()]


def ours(folder: Path, strategies: Sequence[str], keep_ratio: float, n_questions: int) -> list[dict[str, Any]]:
    """Return the lines of `tokenprune eval`'s answers."""
    evaluate(
        output=folder,
        strategies=strategies,
        keep_ratios=[keep_ratio],
        position_ids=["original"],
        baselines=["unpruned"],
        tasks=["vqa"],
        limit=n_questions,
    )
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lmms_python", help="the interpreter with lmms-eval")
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument(
        "--strategies", nargs="*", default=["fopru:layer=-2", "fastv"], help="strategies, as for tokenprune eval"
    )
    parser.add_argument("--keep-ratio", type=float, default=0.25)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--processes", type=int, default=1, help="processes of lmms-eval, which share the questions")
    options = parser.parse_args()
    asked = limit_questions(load_questions(SCENES, ["vqa"], style=STYLES["bundled"]), options.questions)
    compared: dict[str, Setup] = {"": Unpruned()}  # model arguments of lmms-eval -> our setup
    for strategy in options.strategies:
        told = f",strategy={strategy.replace(':', ',', 1)},keep_ratio={options.keep_ratio}"
        (compared[told],) = make_setups([strategy], [options.keep_ratio], ["original"], [])
    table = Table("strategy", "n", "same answers", "visual tokens", "of them kept", "of them kept, ours")
    n_different = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_task(folder / "task", asked)
        lines = ours(folder / "run", options.strategies, options.keep_ratio, options.questions)
        for told, setup in compared.items():
            model_args = f"pretrained={MODEL}{told}"
            results, samples = theirs(options.lmms_python, folder, model_args, options.batch_size, options.processes)
            texts = {asked[sample["doc_id"]].id: sample["filtered_resps"] for sample in samples}
            own = {line["id"]: line for line in lines if line["strategy"] == setup.label}
            assert texts.keys() == own.keys()
            n_same = sum(text == own[question]["text"] for question, text in texts.items())
            n_different += len(own) - n_same
            counts = [results["throughput"][f"avg_{what}"] for what in ("visual_tokens", "kept_visual_tokens")]
            kept = sum(line["n_kept"] for line in own.values()) / len(own)
            table.add_row(setup.label, str(len(own)), str(n_same), *(f"{n:.1f}" for n in (*counts, kept)))
    Console().print(table)
    version = "import importlib.metadata; print(importlib.metadata.version('lmms-eval'))"
    theirs_is = subprocess.run([options.lmms_python, "-c", version], check=True, capture_output=True, text=True).stdout
    print(f"lmms-eval {theirs_is.strip()}, transformers {transformers.__version__} (ours)")
    sys.exit(n_different > 0)


if __name__ == "__main__":
    main()
