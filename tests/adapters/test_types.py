"""Every vision-language class of transformers is either supported or refused with a reason."""

import pytest
from helpers.families import FAMILIES
from helpers.tiny import tiny_llava
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

import tokenprune
from tokenprune import UnsupportedError
from tokenprune.adapters import ADAPTERS, GenericAdapter, ModelAdapter
from tokenprune.adapters.refused import NEVER, NOT_YET, parts

CLASSES = {
    name
    for names in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()
    for name in ([names] if isinstance(names, str) else names)
}


def test_new_types_announce_themselves() -> None:
    """A class that transformers adds needs an adapter, or a reason in refused.py."""
    assert not sorted(CLASSES - ADAPTERS.keys() - NEVER.keys() - NOT_YET.keys())


def test_nothing_is_both_supported_and_refused() -> None:
    assert not ADAPTERS.keys() & (NEVER.keys() | NOT_YET.keys() | parts().keys())
    assert not NEVER.keys() & NOT_YET.keys()


@pytest.mark.parametrize("adapter", [None, GenericAdapter])
@pytest.mark.parametrize("name", [*NEVER, *NOT_YET])
def test_a_refusal_gives_its_reason(name: str, adapter: type[ModelAdapter] | None) -> None:
    """The generic adapter gives it too: BLIP-2's generate would silently bypass that adapter."""
    model = type(name, (nn.Linear,), {})(1, 1)
    reason = {**NEVER, **NOT_YET}[name]
    with pytest.raises(UnsupportedError) as caught:
        tokenprune.patch(model, "grid", keep_ratio=0.5, adapter=adapter)
    assert name in str(caught.value)
    assert reason in str(caught.value)


def test_a_family_that_is_not_as_expected_in_an_older_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FAMILIES["fuyu"].build()
    monkeypatch.setattr("transformers.__version__", "5.19.0")
    with pytest.raises(UnsupportedError, match=r'that FuyuForCausalLM .*pip install "transformers>=5\.24,<6'):
        tokenprune.patch(model, tokenprune.Random())
    with tokenprune.patch(tiny_llava(), tokenprune.Random()):
        pass
