"""Models whose code is not in transformers: what the generic adapter can read, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.contract.oracle import TOLERANCE
from helpers.families import FAMILIES
from helpers.tiny import IMAGE, prompt, tiny_llava
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, LlavaModel
from transformers.models.llava.modeling_llava import LlavaModelOutputWithPast

import tokenprune
from tokenprune import GenericAdapter, PruningError, Random, UnsupportedError


class HomeMade(LlavaModel):
    """Inserts features by assignment, and returns them as a bare tensor, as such code often does."""

    shape: Callable[[Tensor], Any]

    def encode(self, pixels: Tensor) -> Tensor:
        return self.multi_modal_projector(self.vision_tower(pixels).last_hidden_state[:, 1:])

    def get_image_features(self, pixel_values: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.shape(self.encode(pixel_values))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor, **kwargs: Any
    ) -> Any:
        embeds = self.get_input_embeddings()(input_ids)
        features = self.get_image_features(pixel_values)
        embeds[input_ids == IMAGE] = torch.cat(list(features)).reshape(-1, embeds.shape[-1])
        return self.decode(embeds, attention_mask, kwargs["position_ids"])

    def decode(self, embeds: Tensor, mask: Tensor, ids: Tensor | None) -> LlavaModelOutputWithPast:
        output = self.language_model(inputs_embeds=embeds, attention_mask=mask, position_ids=ids)
        return LlavaModelOutputWithPast(last_hidden_state=output.last_hidden_state)


class ByAnotherMethod(HomeMade):
    def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor, **kwargs: Any) -> Any:
        embeds = self.get_input_embeddings()(input_ids)
        embeds[input_ids == IMAGE] = self.encode(pixel_values).flatten(0, 1)
        return self.decode(embeds, attention_mask, kwargs["position_ids"])


def home_made(shape: Callable[[Tensor], Any]) -> Any:
    model = tiny_llava("clip")
    model.model.__class__ = HomeMade
    model.model.shape = shape
    return model


@torch.no_grad()
@pytest.mark.parametrize("shape", [lambda found: found, list, tuple])
def test_features_that_are_returned_alone(shape: Callable[[Tensor], Any]) -> None:
    model, inputs = home_made(shape), prompt([1, 2])
    with tokenprune.patch(model, Random(keep_ratio=0.25), adapter=GenericAdapter) as handle:
        last = model(**inputs).logits[:, -1]
    ids = inputs["input_ids"]
    mask, places = inputs["attention_mask"].clone(), (ids == IMAGE).nonzero()
    for image, where in zip(handle.report.images, places.split(handle.report.images[0].n_visual), strict=True):
        dropped = torch.ones(image.n_visual).index_fill(0, image.kept, 0).bool()
        mask[where[dropped, 0], where[dropped, 1]] = 0
    masked = model(**{**inputs, "attention_mask": mask}, position_ids=torch.arange(ids.shape[1])[None])
    torch.testing.assert_close(last, masked.logits[:, -1], atol=TOLERANCE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (lambda found: {"features": found}, r"GenericAdapter cannot read the features .* in a dict\. Return a tensor"),
        (lambda found: (list(found), found), "cannot read the features .* in a tuple"),
        (lambda found: found.flatten(0, 1), "as one matrix"),
    ],
)
def test_features_that_cannot_be_read(shape: Callable[[Tensor], Any], said: str) -> None:
    model = home_made(shape)
    with (
        tokenprune.patch(model, Random(), adapter=GenericAdapter),
        pytest.raises(PruningError, match=said + r".*adapters/README\.md"),
    ):
        model(**prompt([1, 2]))


@torch.no_grad()
def test_a_forward_that_encodes_images_in_another_way() -> None:
    model = home_made(list)
    model.model.__class__ = ByAnotherMethod
    said = "did not encode their images with the method that the adapter names, such as get_image_features"
    with tokenprune.patch(model, Random(), adapter=GenericAdapter), pytest.raises(PruningError, match=said):
        model(**prompt([1, 2]))


@pytest.mark.parametrize("name", ["vision_tower", "language_model"])
def test_code_from_elsewhere_under_a_name_of_transformers(name: str) -> None:
    """As with trust_remote_code: AllenAI's Molmo2ForConditionalGeneration is not transformers'."""
    model = tiny_llava("clip")
    setattr(model.model, f"my_{name}", model.model._modules.pop(name))
    own = {"__module__": "transformers_modules.mine.modeling"}
    model.__class__ = type("LlavaForConditionalGeneration", (nn.Module,), own)
    said = (
        r"is not transformers' own but that of transformers_modules\.mine\.modeling, whose parts LlavaAdapter may not"
    )
    with pytest.raises(UnsupportedError, match=said):
        tokenprune.patch(model, Random())


def test_a_copy_of_transformers_code_is_pruned_like_it() -> None:
    model = tiny_llava("clip")
    copy = {"__module__": "research.modeling_llava"}
    model.__class__ = type("LlavaForConditionalGeneration", (LlavaForConditionalGeneration,), copy)
    with torch.no_grad(), tokenprune.patch(model, Random(keep=4)) as handle:
        model(**prompt([1]))
    assert handle.report.n_kept == 4


@pytest.mark.parametrize("adapter", [None, GenericAdapter])
@pytest.mark.parametrize("name", ["Gemma3ForSequenceClassification", "Qwen3_5ForTokenClassification"])
def test_a_head_that_reads_tokens_at_their_places(name: str, adapter: type[GenericAdapter] | None) -> None:
    """In a batch with a longer row of text, such a head would silently read the wrong token of a pruned row."""
    model = FAMILIES["gemma3"].build()
    model.__class__ = type(name, (type(model).__mro__[1],), {})
    with pytest.raises(UnsupportedError, match=f"{name} cannot be pruned: its head reads tokens at their places in"):
        tokenprune.patch(model, Random(), adapter=adapter)
