"""Vision towers of timm: the Perception Encoder of PerceptionLM, FastVLM's FastViT and Gemma 3n's MobileNet V5."""

import pickle
from functools import cache
from inspect import signature
from typing import Any

import pytest
import torch
import transformers
from helpers.contract.oracle import assert_close, dropped_columns
from helpers.contract.published import assert_pruned_is_masked, build, image_of, n_placeholders, prompt_of
from helpers.families.base import IMAGE, START, VIDEO, decoder
from helpers.families.gemma import Gemma3n
from helpers.families.llava import FastVlm, PerceptionLM
from torch import Tensor, nn

import tokenprune
from tokenprune import FoPru, Random, UnsupportedError
from tokenprune.adapters import adapter_for

pytest.importorskip("timm", reason="the published towers need timm")


class Perception(PerceptionLM):
    """PerceptionLM with a small Perception Encoder: a CLS token, and patches whose queries and keys are rotated."""

    encoder = "vit_pe_lang_large_patch14_448"
    cls = True
    side, n_visual = 56, 12

    def config(self) -> Any:
        arguments = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": [56, 56], "ref_feat_shape": [4, 4]}
        vision = transformers.TimmWrapperConfig(architecture=self.encoder, model_args=arguments, do_pooling=False)
        return transformers.PerceptionLMConfig(
            vision_config=vision,
            text_config=transformers.LlamaConfig(**decoder()),
            projector_pooling_ratio=2,
            vision_use_cls_token=self.cls,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
        )


class WithoutCls(Perception):
    encoder, cls = "vit_pe_lang_gigantic_patch14_448", False


class Fast(FastVlm):
    """FastVLM with a small FastViT of the published design."""

    def config(self) -> Any:
        arguments = {"layers": [1, 1, 1, 1, 2], "embed_dims": [8, 8, 16, 32, 64], "inference_mode": True}
        vision = transformers.TimmWrapperConfig(architecture="fastvit_mci3", model_args=arguments, do_pooling=True)
        vision.hidden_size = 128
        text = transformers.Qwen2Config(**decoder())
        return transformers.FastVlmConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)

    def build(self, attention: Any = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        model = super().build(attention, seed, n_layers)
        for block, std in zip(model.model.vision_tower.timm_model.stages[-1].blocks, (20.0, 1.0), strict=False):
            if hasattr(block.token_mixer, "qkv"):  # so that attention is far from uniform
                torch.nn.init.normal_(block.token_mixer.qkv.weight, std=std)
        return model

    def block(self, size: Any) -> list[int]:
        return [IMAGE] * 16

    def image_inputs(self, size: Any, generator: torch.Generator) -> dict[str, Tensor]:
        return {"pixel_values": torch.randn(1, 3, 256, 256, generator=generator)}


FAMILIES: dict[str, Any] = {
    "perception": Perception("perception-lm"),
    "without-cls": WithoutCls("perception-lm"),
    "fast": Fast("fast-vlm"),
}


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build()


def weights_of(model: Any, attention: Any, inputs: dict[str, Any]) -> Tensor:
    """Return timm's own weights (tiles, heads, tokens, tokens), from the dropout that its unfused attention calls."""
    found: list[Tensor] = []
    hook = attention.attn_drop.register_forward_hook(lambda module, args, output: found.append(output))
    fused, attention.fused_attn = attention.fused_attn, False
    with torch.no_grad():
        model(**inputs)
    attention.fused_attn = fused
    hook.remove()
    return torch.cat(found)


@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize(("name", "n_prefix"), [("perception", 1), ("without-cls", 0), ("fast", 0)])
def test_attention_is_that_of_the_tower(name: str, n_prefix: int, layer: int) -> None:
    model, inputs = model_of(name), FAMILIES[name].prompt([1, 2])
    adapter = adapter_for(model)
    assert adapter.tower.n_prefix == n_prefix
    (point,) = adapter.capture_points(layer)
    weights = weights_of(model, point.attention, inputs)
    received = weights[:, :, n_prefix:, n_prefix:].mean(1).sum(1)
    with torch.no_grad(), tokenprune.patch(model, FoPru(layer=layer, score="column", keep_ratio=0.5)) as handle:
        model(**inputs)
    images = handle.report.images
    for image, own in zip(images, received.split([image.layout.n_tiles for image in images]), strict=True):
        assert image.scores is not None
        torch.testing.assert_close(image.scores, image.layout.to_tokens(own), atol=1e-5, rtol=1e-5)
        assert own.std() > 1e-3  # far from uniform


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("strategy", [Random(keep_ratio=0.3), FoPru(keep_ratio=0.3)], ids=["random", "fopru"])
def test_pruning_equals_masking(name: str, strategy: tokenprune.Strategy) -> None:
    family, model, inputs = FAMILIES[name], model_of(name), FAMILIES[name].prompt([2])
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        logits = model(**inputs).logits
    dropped = dropped_columns(inputs["input_ids"], [handle.report])
    assert dropped.any()
    assert_close(logits[0], family.oracle(model, inputs, dropped)[0, ~dropped[0]])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pickle_is_patched_by_itself(name: str) -> None:
    model, inputs = FAMILIES[name].build(), FAMILIES[name].prompt([1])
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.3)):
        assert torch.equal(pickle.loads(pickle.dumps(model))(**inputs).logits, model(**inputs).logits)


def test_a_tower_of_another_design_is_refused() -> None:
    family = Perception("perception-lm")
    model = family.build()
    model.model.vision_tower.timm_model.blocks = None
    with pytest.raises(UnsupportedError, match="how timm's Eva attends is not known"):
        tokenprune.patch(model, Random(keep_ratio=0.5))


def test_a_convolutional_tower_has_no_attention() -> None:
    """The last stage decides: that of the published FastViT has attention, others do not."""
    family = Fast("fast-vlm")
    config = family.config()
    config.vision_config.architecture = "fastvit_sa12"
    sizes: dict[str, Any] = {"layers": [1, 1, 1, 1], "embed_dims": [8, 8, 16, 64]}
    config.vision_config.model_args = {**sizes, "token_mixers": ["repmixer"] * 4}
    family.config = lambda: config
    with pytest.raises(UnsupportedError, match=r"vision tower \(TimmWrapperModel\) is read as convolutional"):
        tokenprune.patch(family.build(), FoPru(keep_ratio=0.5))


class PublishedGemma3n(Gemma3n):
    """The published vision tower, and layers of the published kinds and heads, but few and narrow."""

    vision: Any = None

    def config(self) -> Any:
        tiny = super().config()
        text = tiny.get_text_config().to_dict()
        text |= {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "sliding_window": 512}
        text |= {"hidden_size": 128, "hidden_size_per_layer_input": 256, "altup_num_inputs": 4, "laurel_rank": 64}
        kinds = ["sliding_attention"] * 4 + ["full_attention", "sliding_attention", "full_attention"]
        text |= {"num_hidden_layers": 7, "layer_types": kinds, "intermediate_size": 48, "num_kv_shared_layers": 2}
        text |= {"activation_sparsity_pattern": [0.95] * 2 + [0.0] * 5}
        return transformers.Gemma3nConfig(
            text_config=text,
            vision_config={"vocab_offset": IMAGE, "vocab_size": 6},
            audio_config=tiny.audio_config,
            vision_soft_tokens_per_image=256,
            image_token_id=IMAGE,
            boi_token_id=START,
            eoi_token_id=tiny.eoi_token_id,
            audio_token_id=tiny.audio_token_id,
        )


@pytest.mark.slow
def test_gemma_3n_at_published_shapes() -> None:
    """Includes the attention of the tower's last stage, carried to visual tokens as the tower fuses its maps."""
    family: Any = PublishedGemma3n("gemma3n")
    model = build(family, "sdpa")
    assert pickle.loads(pickle.dumps(adapter_for(model).tower))
    processor = transformers.SiglipImageProcessor(size={"height": 768, "width": 768}, do_normalize=False)
    inputs = dict(processor(images=[image_of(480, 640)], return_tensors="pt"))
    length = signature(transformers.Gemma3nProcessor.__init__).parameters["image_seq_length"].default
    n_written = n_placeholders(transformers.Gemma3nProcessor, inputs, full_image_sequence="x" * length)
    inputs = prompt_of(family, inputs, [[START, n_written]])
    stages = model.model.vision_tower.timm_model.blocks
    attention = next(block.attn for block in reversed(stages[-1]) if hasattr(block, "attn"))
    found: dict[str, Tensor] = {}
    attention.query.register_forward_hook(lambda module, args, output: found.update(queries=output))
    attention.key.register_forward_hook(lambda module, args, output: found.update(keys=output))
    (report,) = assert_pruned_is_masked(family, model, inputs, 256, strategies=(FoPru(keep_ratio=0.25),))

    queries, keys = (found[name].unflatten(1, (-1, attention.key_dim)).flatten(3)[0] for name in ("queries", "keys"))
    weights = (attention.scale * queries.transpose(1, 2) @ keys).softmax(-1)
    received = weights.mean(0).sum(0)[None]
    (image,) = report.images
    assert image.scores is not None
    torch.testing.assert_close(image.scores, image.layout.to_tokens(received), atol=1e-5, rtol=1e-4)

    fusion, values = model.model.vision_tower.timm_model.msfa, torch.rand(1, 24 * 24)
    maps = [torch.zeros(1, 640, 48, 48), values.view(1, 1, 24, 24).expand(-1, 1280, -1, -1)]
    fusion.ffn, fusion.norm = nn.Identity(), nn.Identity()
    carried = fusion(maps)[0, -1].flatten()
    torch.testing.assert_close(image.layout.to_tokens(values), carried)
