"""What must work in every family: labels as long as the logits, pixels without images, and copies that are patched
separately."""

import copy
import pickle
from functools import cache
from inspect import unwrap
from typing import Any

import pytest
import torch
from helpers.contract.oracle import dropped_columns
from helpers.families import FAMILIES, present
from helpers.families.base import IMAGE

import tokenprune
from tokenprune import DivPrune, PruningError

IGNORED = -100


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_is_that_of_the_kept_columns(name: str) -> None:
    """Each label is compared with the logits of the kept column before it. The matrix tests the logits themselves."""
    model, inputs = model_of(name), FAMILIES[name].prompt([1, 2])
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    labels = ids.masked_fill((ids >= IMAGE) | ~real, IGNORED)
    with torch.no_grad(), tokenprune.patch(model, DivPrune(keep_ratio=0.3)) as handle:
        if name.startswith("gemma3") and "loss_function" not in unwrap(type(model).forward).__code__.co_names:
            with pytest.raises(PruningError, match="labels count the tokens of the unpruned sequence"):
                model(**inputs, labels=labels)
            return
        out = model(**inputs, labels=labels)
    left = real & ~dropped_columns(ids, [handle.report])
    predicted = [row[-int(kept.sum()) : -1] for row, kept in zip(out.logits, left, strict=True)]
    wanted = [row[kept][1:] for row, kept in zip(labels, left, strict=True)]
    expected = torch.nn.functional.cross_entropy(torch.cat(predicted), torch.cat(wanted), ignore_index=IGNORED)
    assert float((out.loss - expected).abs()) < 1e-5


#: Families whose transformers class accepts pixels of zero images, which are an error in the others.
TAKE_NO_IMAGE = present("llava-next", "gemma3n", "fuyu")


@pytest.mark.parametrize("name", TAKE_NO_IMAGE)
def test_pixels_of_no_image(name: str) -> None:
    """Some collators make them for a batch of text. They do not change the report of the last image."""
    family, model = FAMILIES[name], model_of(name)
    text, image = family.prompt([0, 0]), family.prompt([1])
    nothing = {key: value[:0] for key, value in image.items() if key not in text}
    with torch.no_grad():
        expected = model(**text, **nothing).logits
        with tokenprune.patch(model, DivPrune(keep_ratio=0.3)) as handle:
            model(**image)
            report = handle.report
            assert torch.equal(model(**text, **nothing).logits, expected)
            assert handle.report is report


@pytest.mark.parametrize("name", FAMILIES)
def test_a_copy_is_patched_by_itself(name: str) -> None:
    model, inputs = model_of(name), FAMILIES[name].prompt([1])

    def n_logits(of: Any) -> int:
        with torch.no_grad():
            return of(**inputs).logits.shape[1]

    whole = n_logits(model)
    with tokenprune.patch(model, DivPrune(keep_ratio=0.3)):
        twin = copy.deepcopy(model)
        pruned = n_logits(model)
        assert n_logits(twin) == pruned < whole
        tokenprune.unpatch(twin)
        assert (n_logits(model), n_logits(twin)) == (pruned, whole)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pickle_is_patched_by_itself(name: str) -> None:
    model, inputs = FAMILIES[name].build(), FAMILIES[name].prompt([1])
    with torch.no_grad(), tokenprune.patch(model, DivPrune(keep_ratio=0.3)):
        if any(map(torch.nn.utils.parametrize.is_parametrized, model.modules())):
            pytest.skip("PyTorch pickles no parametrized modules")
        twin = pickle.loads(pickle.dumps(model))  # after the first call, transformers' hooks prevent it
        assert torch.equal(twin(**inputs).logits, model(**inputs).logits)
