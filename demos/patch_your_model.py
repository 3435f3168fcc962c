"""Patch a model in code of your own: twenty lines to copy, and what they change in answer, time and KV cache.

python demos/patch_your_model.py                                      # the bundled model, on a bundled scene
python demos/patch_your_model.py dog.jpg "What is this?" --model PATH --strategy visionzip --keep-ratio 0.1
"""

# ==== copy from here =================================================================================================
import time

import tokenprune


def ask(model, processor, picture, question):
    """Return the answer, the seconds that it took, and the bytes of its KV cache."""
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=[picture], text=[text], return_tensors="pt").to(model.device, model.dtype)
    start = time.perf_counter()
    output = model.generate(**inputs, max_new_tokens=32, do_sample=False, return_dict_in_generate=True)
    answer = processor.decode(output.sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    seconds = time.perf_counter() - start
    cache = output.get("cache") or output["past_key_values"]  # its name until transformers 5.23
    return answer.strip(), seconds, sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def before_and_after(model, processor, picture, question, strategy):  # tokenprune.FoPru(keep_ratio=0.25), for one
    before = ask(model, processor, picture, question)
    with tokenprune.patch(model, strategy):  # behind this block the model is what it was
        return before, ask(model, processor, picture, question)


# ==== to here ========================================================================================================


def main(arguments=None):
    import argparse
    from pathlib import Path
    from statistics import median

    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    from tokenprune.evals.models.bundled import MODEL, SCENES
    from tokenprune.evals.models.loading import load_model
    from tokenprune.evals.run.setups import Pruned, make_setups
    from tokenprune.evals.tasks._read.images import open_image

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path, default=SCENES / "images" / "val_000001.jpg")
    parser.add_argument("question", nargs="?", default="what is on the left?")
    parser.add_argument("--model", default=str(MODEL), help="a folder or a Hugging Face name")
    parser.add_argument("--strategy", default="fopru:layer=-2", help="with settings: fopru:mode=row")
    parser.add_argument("--keep-ratio", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=5, help="of the measurement of time")
    options = parser.parse_args(arguments)
    model, processor = load_model(options.model, "auto")
    (pruned,) = make_setups([options.strategy], [options.keep_ratio], ["original"], baselines=[])
    assert isinstance(pruned, Pruned), "nothing is pruned by downsampling"
    asked = model, processor, open_image(options.image), options.question, pruned.strategy
    _, *rounds = (before_and_after(*asked) for _ in range(options.rounds + 1))  # a first call allocates
    before, after = zip(*rounds, strict=True)
    table = Table("", "answer", "time", "KV cache", title=options.question, title_justify="left")
    for name, calls in ("unpruned", before), (f"{pruned.label}, {pruned.keep_ratio:.0%}", after):
        answer, _, n_bytes = calls[0]
        table.add_row(name, answer, f"{median(seconds for _, seconds, _ in calls):.3f} s", decimal(n_bytes))
    slower, larger = (median(one[i] / other[i] for other, one in rounds) for i in (1, 2))
    table.add_row("ratio", "", f"{slower:.2f}x", f"{larger:.2f}x")
    Console().print(table)


if __name__ == "__main__":
    main()
