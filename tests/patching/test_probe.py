"""`tokenprune.probe`: the statistics of every family, and a model that meanwhile computes bitwise the same."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from helpers.families import COMPACT_ONLY, FAMILIES, VERSION
from helpers.families.base import ENCODES_FIRST
from helpers.tiny import CACHE, IMAGE, SIDE, prompt
from torch.testing import assert_close
from transformers import DynamicCache, StaticCache

import tokenprune
from tokenprune import PruningError, Random, SettingError, UnsupportedError
from tokenprune.adapters import adapter_for
from tokenprune.engine.pruner import Pruner

NAMES = [name for name, family in FAMILIES.items() if family.refused is None]


def offered(name: str, statistics: set[str]) -> Any:
    """Return a model of a family that offers the statistics. Otherwise check that a probe is refused, and skip the
    test."""
    model = FAMILIES[name].build()
    if statistics <= adapter_for(model).offers:
        return model
    with (
        pytest.raises(UnsupportedError),
        tokenprune.probe(model, statistics - {"text_attention"}, decoder_layers=[0, 1]),
    ):
        pass
    pytest.skip(f"refused: {name} does not offer {statistics}")


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_bitwise_unpatched(name: str) -> None:
    family = FAMILIES[name]
    model, inputs = offered(name, {"vision_attention", "pixels", "text_attention"}), family.prompt([2, 1])
    with torch.no_grad():
        plain = model(**inputs)
        answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        with tokenprune.probe(model, {"vision_attention", "pixels"}, decoder_layers=[0, 1]) as seen:
            probed = model(**inputs)
            assert torch.equal(probed.logits, plain.logits)
            assert type(probed.get(CACHE)) is type(plain.get(CACHE))
            assert torch.equal(model.generate(**inputs, max_new_tokens=3, do_sample=False), answer)
            images = seen.images
    assert [image.row for image in images] == [0, 0, 1]
    visual = family.visual(inputs["input_ids"])
    assert sum(image.tokens.n_visual for image in images) == int(visual.sum())
    for image in images:
        tokens = image.tokens
        assert tokens.layout.n_visual == len(tokens.features) == len(tokens.vision_attention.received())
        assert [len(image.text_attention[layer].from_last()) for layer in (0, 1)] == [tokens.n_visual] * 2
    assert Pruner.on(model) is None


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_text_attention_is_the_eager_map(name: str, padding: str) -> None:
    family = FAMILIES[name]
    inputs = family.prompt([2, 1], texts=[3, 5], padding=padding)
    model, eager = offered(name, {"text_attention"}), family.build("eager")
    with tokenprune.probe(model, decoder_layers=[0, 1]) as seen:
        images = seen.run(**inputs)
    with torch.no_grad():
        maps = [layer.mean(1) for layer in eager(**inputs, output_attentions=True).attentions]
    visual, real = family.visual(inputs["input_ids"]), inputs["attention_mask"].bool()
    for layer, weights in enumerate(maps):
        for row in (0, 1):
            own = [image.text_attention[layer] for image in images if image.row == row]
            last = int(real[row].nonzero()[-1])
            assert_close(
                torch.cat([one.from_last() for one in own]), weights[row, last, visual[row]], atol=1e-5, rtol=0
            )
            after = int(visual[row].nonzero()[-1]) + 1
            text = [i for i in range(after, visual.shape[1]) if real[row, i]]
            expected = weights[row, text].mean(0)[visual[row]][-own[-1].visual.shape[0] :]
            assert_close(own[-1].from_text(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("family", "layer"), [("llava-clip", 1), ("gemma3-window", 0)])
def test_a_second_turn_leaves_the_cache_out_of_the_softmax(family: str, layer: int, static: bool) -> None:
    """Also in a layer whose window no longer covers part of the first turn."""
    inputs = FAMILIES[family].prompt([1])
    n = inputs["input_ids"].shape[1]
    both = {**inputs, "attention_mask": torch.ones(1, 2 * n, dtype=torch.long)}
    maps = []
    for attention in ("eager", "sdpa"):
        model = FAMILIES[family].build(attention)
        config = model.config.get_text_config()
        cache = StaticCache(config=config, max_cache_len=2 * n + 8) if static else DynamicCache(config=config)
        with torch.no_grad(), tokenprune.probe(model, decoder_layers=[layer]) as seen:
            first = model(**inputs, **{CACHE: cache}, use_cache=True)
            out = model(**both, **{CACHE: first[CACHE]}, output_attentions=attention == "eager")
            (image,) = seen.images
        if attention == "eager":
            new = out.attentions[layer][0, :, -1]
            new = new[:, n : 2 * n] if new.shape[1] >= 2 * n else new[:, -n:]
            maps.append((new / new.sum(-1, keepdim=True)).mean(0)[inputs["input_ids"][0] == IMAGE])
        maps.append(image.text_attention[layer].from_last())
    for found in maps[1:]:
        assert_close(found, maps[0], atol=1e-5, rtol=0)


def test_a_run_stops_once_everything_is_known(llava: Any) -> None:
    llava(**prompt([1]))  # the first call adds transformers' own hooks
    calls: list[str] = []
    parts = {"layer 0": llava.model.language_model.layers[0], "layer 1": llava.model.language_model.layers[1]}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, module in {**parts, "head": llava.lm_head}.items()
    ]
    before = [dict(vars(module)) for module in llava.modules()]
    try:
        for layers, expected in (([], []), ([0], ["layer 0"]), ([1], ["layer 0", "layer 1", "head"])):
            calls.clear()
            with tokenprune.probe(llava, decoder_layers=layers) as seen:
                (image,) = seen.run(**prompt([1]))
            assert calls == expected
            assert list(image.text_attention) == layers
            assert not image.tokens.features.requires_grad
    finally:
        for hook in hooks:
            hook.remove()
    with tokenprune.patch(llava, Random(keep=3)) as handle:  # the abandoned forward does not interfere
        llava(**prompt([1]))
        assert handle.report.n_kept == 3
    assert [set(vars(module)) for module in llava.modules()] == [set(names) for names in before]


@pytest.mark.skipif(not ENCODES_FIRST, reason="this transformers encodes the image of every row")
def test_beams_and_repeated_rows_share_their_images(llava: Any) -> None:
    inputs = prompt([1, 2])
    with tokenprune.probe(llava, decoder_layers=[0]) as seen:
        llava.generate(**inputs, num_beams=2, max_new_tokens=2, do_sample=False)
        images = seen.images
    assert [image.row for image in images] == [0, 1, 2, 2, 3, 3]
    assert images[0].tokens is images[1].tokens
    assert_close(images[0].text_attention[0].from_last(), images[1].text_attention[0].from_last())


def test_only_the_last_forward_is_kept_and_nothing_after_the_end(llava: Any) -> None:
    with tokenprune.probe(llava, {"vision_attention"}, decoder_layers=[0]) as seen:
        (image,) = seen.run(**prompt([1]))
        first = [weakref.ref(image.tokens.features), weakref.ref(image.tokens.vision_attention.queries)]
        first.append(weakref.ref(image.text_attention[0].queries))
        del image
        llava(**prompt([1], seed=2))
        gc.collect()
        assert [reference() for reference in first] == [None] * 3
        (image,) = seen.images
        last = weakref.ref(image.tokens.features)
        llava(input_ids=torch.tensor([[1, 2, 3]]))  # a forward without images changes nothing
        assert seen.images[0].tokens is image.tokens
        del image
    gc.collect()
    assert last() is None
    with pytest.raises(PruningError, match="inside the `with` block"):
        _ = seen.images


@pytest.mark.skipif(VERSION < (5, 24), reason="older versions cannot compile this model, patched or not")
def test_a_compiled_model_shows_the_same(llava: Any) -> None:
    inputs, settings = prompt([2, 1]), {"needs": {"vision_attention"}, "decoder_layers": [1]}
    compiled: Any = torch.compile(llava, backend="eager")
    with torch.no_grad():
        with tokenprune.probe(llava, **settings) as seen:
            expected = seen.run(**inputs)
        with tokenprune.probe(compiled, **settings) as seen:
            compiled(**prompt([2, 1], seed=3))
            compiled(**inputs)
            images = seen.images
    for image, plain in zip(images, expected, strict=True):
        assert_close(image.text_attention[1].from_last(), plain.text_attention[1].from_last())
        assert_close(image.tokens.vision_attention.received(), plain.tokens.vision_attention.received())


# Patched models.


def test_a_patch_is_suspended_and_restored(llava: Any) -> None:
    inputs = prompt([1])
    with torch.no_grad(), tokenprune.patch(llava, Random(keep=3)) as handle:
        with tokenprune.probe(llava) as seen:
            llava(**inputs)
            assert seen.images[0].tokens.n_visual == (SIDE // 4) ** 2
            assert "removed" in repr(handle)
        llava(**inputs)
        assert handle.report.n_kept == 3
        assert "patched" in repr(handle)
        seen.remove()
        assert "patched" in repr(handle)
    assert Pruner.on(llava) is None


def test_a_patch_that_was_removed_meanwhile_stays_removed(llava: Any) -> None:
    with tokenprune.patch(llava, Random(keep=3)):
        seen = tokenprune.probe(llava)
    seen.remove()
    assert Pruner.on(llava) is None
    handle = tokenprune.patch(llava, Random(keep=3))
    with tokenprune.probe(llava):
        handle.remove()
    assert Pruner.on(llava) is None


def test_a_patch_within_replaces_the_probe_and_stays(llava: Any) -> None:
    with tokenprune.probe(llava, decoder_layers=[0]) as seen:
        seen.run(**prompt([1]))
        handle = tokenprune.patch(llava, Random(keep=3))
        llava(**prompt([1]))
        with pytest.raises(PruningError, match="replaced by a patch"):
            _ = seen.images
    assert handle.report.n_kept == 3
    assert "patched" in repr(handle)
    handle.remove()


def test_a_probe_says_what_it_is(llava: Any) -> None:
    with tokenprune.probe(llava, "cls") as seen:
        assert repr(seen) == "Probe(LlavaForConditionalGeneration, needs=['cls'], decoder_layers=(), patched)"
        assert repr(seen.run(**prompt([1]))) == "[ProbedImage(row=0, image, 36 visual tokens)]"


@pytest.mark.skipif("minimax-m3" not in COMPACT_ONLY, reason="this transformers has no such model")
def test_a_model_that_takes_compact_position_ids_only() -> None:
    family = COMPACT_ONLY["minimax-m3"]
    model, inputs = family.build(), family.prompt([1])
    with torch.no_grad():
        plain = model(**inputs).logits
        with tokenprune.probe(model, {"pixels"}) as seen:
            assert torch.equal(model(**inputs).logits, plain)
            (image,) = seen.images
    assert image.tokens.n_visual == len(image.tokens.features)


# Errors.


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"needs": {"vision_attenton"}}, SettingError, "Did you mean 'vision_attention'"),
        ({"needs": {"text_tower"}}, UnsupportedError, "does not have it; it offers"),
        ({"needs": {"kept_in_tower"}}, SettingError, "a probe prunes nothing"),
        ({"needs": {"text_attention"}}, SettingError, r"Write decoder_layers=\[8\]"),
        ({"layer": 1}, SettingError, 'needs={"vision_attention"}'),
        ({"needs": {"vision_attention"}, "layer": 9}, UnsupportedError, "layer=9 is not in the vision tower"),
        ({"decoder_layers": [2]}, SettingError, r"decoder_layers has 2; those of this model are 0\.\.1"),
        ({"decoder_layers": [-1]}, SettingError, "decoder_layers has -1"),
        ({"decoder_layers": [True]}, SettingError, "decoder_layers has True"),
        ({"decoder_layers": 1}, SettingError, r"decoder_layers=1 is not a list; write decoder_layers=\[8\]"),
        ({"decoder_layers": "1"}, SettingError, "decoder_layers='1' is not a list"),
        ({"decoder_layers": None}, SettingError, "decoder_layers=None is not a list"),
        ({"needs": {"vision_attention"}, "layer": np.int64(9)}, UnsupportedError, "layer=9 is not in the vision tower"),
        ({"needs": {"vision_attention"}, "layer": "1"}, SettingError, "layer='1' is not an encoder layer"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_settings_that_are_refused(llava: Any, settings: Any, error: type[Exception], message: str) -> None:
    with tokenprune.patch(llava, Random(keep=3)) as handle:
        with pytest.raises(error, match=message):
            tokenprune.probe(llava, **settings)
        assert "patched" in repr(handle)


def test_statistics_that_were_not_asked_for_or_are_not_there_yet(llava: Any) -> None:
    with tokenprune.probe(llava) as seen:
        with pytest.raises(PruningError, match="no statistics"):
            _ = seen.images
        with pytest.raises(PruningError, match="no statistics"):
            seen.run(input_ids=torch.tensor([[1, 2, 3]]))
        (image,) = seen.run(**prompt([1]))
        with pytest.raises(PruningError, match="vision_attention is not among the strategy"):
            _ = image.tokens.vision_attention
        with pytest.raises(KeyError):
            image.text_attention[0]
