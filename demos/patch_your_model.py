"""Patch a model in your own code: twenty lines to copy, and how they change the answer, the time and the KV cache.

python demos/patch_your_model.py                                      # the bundled model on a bundled scene
python demos/patch_your_model.py dog.jpg "What is this?" --model PATH --strategy visionzip --keep-ratio 0.1
"""

# ==== copy from here =================================================================================================
import time

import tokenprune


def ask(model, processor, image, question):
    """Return the answer, the seconds it took, and the bytes of its KV cache."""
    chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
    wanted = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(chat, add_generation_prompt=True, **wanted).to(model.device, model.dtype)
    start = time.perf_counter()
    output = model.generate(**inputs, max_new_tokens=32, do_sample=False, return_dict_in_generate=True)
    answer = processor.decode(output.sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    seconds = time.perf_counter() - start
    cache = output.get("cache") or output["past_key_values"]  # past_key_values until transformers 5.23
    return answer.strip(), seconds, sum(getattr(x, "nbytes", 0) for layer in cache.layers for x in vars(layer).values())


def before_and_after(model, processor, image, question, strategy):  # for example tokenprune.FoPru(keep_ratio=0.25)
    before = ask(model, processor, image, question)
    with tokenprune.patch(model, strategy):  # leaving this block restores the model
        return before, ask(model, processor, image, question)


# ==== to here ========================================================================================================


def main(arguments=None):
    from statistics import median

    from rich.filesize import decimal
    from rich.table import Table

    from tokenprune.evals.arguments import options as shared
    from tokenprune.evals.arguments.parser import script_parser
    from tokenprune.evals.cli.output import console
    from tokenprune.evals.models.bundled import SCENES
    from tokenprune.evals.models.loading import load_model
    from tokenprune.evals.reading.images import open_image
    from tokenprune.evals.run.setups import Pruned, make_setups

    parser = script_parser(__doc__)
    shared.add_image(parser, "a bundled scene, with a question about it")
    shared.add_option(parser, "model", shared.MODEL)
    shared.add_option(parser, "strategy", shared.strategy(), default="fopru:layer=-2")
    shared.add_option(parser, "keep_ratio", shared.KEEP_RATIO, default=0.25)
    shared.add_rounds(parser, 5, least=1)
    options = parser.parse_args(arguments)
    path, question = options.image, options.question
    if path is None:
        path, question = SCENES / "images" / "val_000007.webp", "what does the sign say?"
    (pruned,) = make_setups([options.strategy], [options.keep_ratio], None, baselines=[])
    if not isinstance(pruned, Pruned):
        raise tokenprune.SettingError(f"--strategy {options.strategy}: prunes nothing; name a strategy, such as fopru")
    model, processor = load_model(options.model, "auto")
    asked = model, processor, open_image(path), question, pruned.strategy
    _, *rounds = (before_and_after(*asked) for _ in range(options.rounds + 1))  # the first call allocates memory
    before, after = zip(*rounds, strict=True)
    table = Table("", "answer", "time", "KV cache", title=question, title_justify="left")
    for name, calls in ("unpruned", before), (f"{pruned.label}, {pruned.keep_ratio:.0%}", after):
        answer, _, n_bytes = calls[0]
        table.add_row(name, answer, f"{median(seconds for _, seconds, _ in calls):.3f} s", decimal(n_bytes))
    time_ratio, cache_ratio = (median(after[i] / before[i] for before, after in rounds) for i in (1, 2))
    table.add_row("ratio", "", f"{time_ratio:.2f}x", f"{cache_ratio:.2f}x")
    console(140).print(table)


if __name__ == "__main__":
    from tokenprune.evals.cli.errors import plain_errors

    with plain_errors():
        main()
