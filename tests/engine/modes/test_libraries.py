"""Patched models in what other libraries build: accelerate, pipelines, servers, and other weights."""

import copy
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers.contract.answers import STRATEGY, assert_answers, n_logits
from helpers.contract.oracle import assert_close
from helpers.tiny import prompt, tiny_llava
from PIL import Image
from transformers import LlavaForConditionalGeneration, QuantoConfig, pipeline

import tokenprune
from tokenprune import FastV, FoPru, Grid, Strategy, UnsupportedError

PRUNED, WHOLE = 15, 42  # columns of prompt([1]): 6 of text, and 9 or 36 visual tokens


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    """An accelerator for bfloat16 on the CPU. Its state is global, so it is reset afterwards."""
    AcceleratorState._reset_state(True)
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize("first", ["patch", "prepare"])
def test_mixed_precision(accelerator: Accelerator, first: str) -> None:
    """It wraps and rebinds the model's forward. A copy, as for moving averages, has its own weights."""
    model, inputs = tiny_llava(), prompt([1])
    with torch.no_grad(), tokenprune.patch(model, STRATEGY), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(**inputs).logits.float()
    handle = tokenprune.patch(model, STRATEGY) if first == "patch" else None
    prepared = accelerator.prepare(model)
    handle = handle or tokenprune.patch(prepared, STRATEGY)
    with torch.no_grad():
        assert torch.equal(prepared(**inputs).logits, expected)
        twin = copy.deepcopy(prepared)
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(**inputs).logits.any()
        assert n_logits(twin, inputs) == PRUNED
        assert torch.equal(prepared(**inputs).logits, expected)
    unwrapped = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    assert n_logits(unwrapped, inputs) == PRUNED
    handle.remove()
    assert n_logits(unwrapped, inputs) == WHOLE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("first", "strategy"), [("patch", STRATEGY), ("compile", FastV(keep_ratio=0.25, layer=1))])
def test_regional_compilation(first: str, strategy: Strategy) -> None:
    """`compile_regions` makes a twin of the model, with compiled layers and the hooks of the original."""
    pytest.importorskip("accelerate", minversion="1.7")
    from accelerate.utils import compile_regions

    model, inputs, graphs = tiny_llava(), prompt([1]), []

    def compiled(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    with torch.no_grad(), tokenprune.patch(model, strategy):
        expected = model(**inputs).logits
    torch.compiler.reset()
    patched = tokenprune.patch(model, strategy) if first == "patch" else None
    twin = compile_regions(model, backend=compiled)
    handle = patched or tokenprune.patch(twin, strategy)
    with torch.no_grad():
        assert_close(twin(**inputs).logits, expected)
    assert graphs
    assert handle.report.images[0].n_left == 9
    tokenprune.unpatch(twin)
    assert n_logits(twin, inputs) == WHOLE
    torch.compiler.reset()


# The pipelines of transformers, with the bundled model and its processor.


MODEL = Path(__file__).parents[3] / "evals" / "bundled" / "model"


@pytest.fixture(scope="module")
def pipe() -> Any:
    return pipeline("image-text-to-text", model=str(MODEL), device="cpu")


def answers(pipe: Any) -> list[Any]:
    """Return the answers to one question about each of two images, in one batch."""
    images = [Image.new("RGB", size, colour) for size, colour in (((256, 256), "red"), ((300, 200), "blue"))]
    out = pipe(images=images, text=["<image>\nIs there a dog?"] * 2, max_new_tokens=4, do_sample=False)
    return [row["generated_text"] if isinstance(row, dict) else row[0]["generated_text"] for row in out]


def test_image_text_to_text(pipe: Any) -> None:
    plain = answers(pipe)
    with tokenprune.patch(pipe.model, FoPru(keep_ratio=0.25)) as handle:
        pruned = answers(pipe)
    assert [image.n_kept for image in handle.report.images] == [64, 64]
    assert all("dog?" in text for text in pruned)
    with tokenprune.patch(pipe.model, FoPru(keep_ratio=1.0)):
        assert answers(pipe) == plain
    assert answers(pipe) == plain


# Continuous batching, which transformers offers for text only: it takes token IDs and no images.


def test_continuous_batching_is_refused(llava: Any) -> None:
    inputs = prompt([1])
    rows = inputs["input_ids"].tolist()
    with tokenprune.patch(llava, Grid()) as handle:
        with pytest.raises(UnsupportedError, match=r"batching \(generate_batch\).*Call generate with a padded"):
            llava.generate_batch(rows, max_new_tokens=2)
        with pytest.raises(UnsupportedError, match="continuous batching"):
            llava.init_continuous_batching()
        with torch.no_grad():
            llava.generate(**inputs, max_new_tokens=2)
        assert handle.report.n_kept == 9
    assert "init_continuous_batching" not in vars(llava)


def test_transformers_itself_takes_no_images(llava: Any) -> None:
    """If this fails, pruning can be supported here."""
    assert not {"pixel_values", "mm_encoder_outputs"} & signature(llava.generate_batch).parameters.keys()


# Quantised weights: pruning equals masking in the same quantised model.


@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.usefixtures("quanto_in_python")
def test_quanto(weights: str, per_row: list[int], tmp_path: Path) -> None:
    plain = tiny_llava()
    plain.save_pretrained(tmp_path)
    model: Any = LlavaForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=QuantoConfig(weights=weights), device_map={"": "cpu"}
    ).eval()
    model.generation_config = plain.generation_config
    assert any(type(module).__name__ == "QLinear" for module in model.model.language_model.modules())
    assert_answers(model, model, per_row)
