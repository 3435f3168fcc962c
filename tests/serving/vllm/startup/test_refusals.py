"""What cannot work is refused before a model is loaded, based on configs and without vLLM."""

from types import SimpleNamespace
from typing import Any

import pytest
import transformers

from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.startup.refusals import check_model

FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}


def llava(text: Any = None, vision: Any = None, **settings: Any) -> Any:
    strategy = "full" if isinstance(vision, transformers.SiglipVisionConfig) else "default"
    config = transformers.LlavaConfig(
        text_config=text or transformers.LlamaConfig(num_hidden_layers=6),
        vision_config=vision or transformers.CLIPVisionConfig(num_hidden_layers=4),
        vision_feature_select_strategy=strategy,
    )
    config.architectures = ["TokenPruneLlava"]
    config.tokenprune = {**FOPRU, **settings}
    return config


def gemma3(**rope: Any) -> Any:
    text = transformers.Gemma3TextConfig(num_hidden_layers=6)
    text.rope_parameters = {**(text.rope_parameters or {}), **rope}
    config = transformers.Gemma3Config(text_config=text, architectures=["TokenPruneGemma3"])
    config.tokenprune = FOPRU
    return config


def check(
    config: Any,
    architecture: str = "TokenPruneLlava",
    embeds: bool = False,
    longest: int = 2048,
    options: dict[str, Any] | None = None,
) -> None:
    multimodal = SimpleNamespace(enable_mm_embeds=embeds, mm_processor_kwargs=options)
    model = SimpleNamespace(hf_config=config, multimodal_config=multimodal, max_model_len=longest)
    check_model(ARCHITECTURES[architecture], model)


def test_what_works_is_not_refused() -> None:
    check(llava())
    check(llava(strategy="visionzip"))
    check(llava(strategy="vflowopt", progressive=False))
    check(llava(strategy="downsample"))
    check(llava(strategy="divprune"), embeds=True)
    check(llava(vision=transformers.SiglipVisionConfig(num_hidden_layers=4), layer=1))
    check(llava(transformers.MistralConfig(sliding_window=4096)))
    check(gemma3(), "TokenPruneGemma3")


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("fastv", "needs the attention of decoder layers"),
        ("pyramiddrop", "needs the attention of decoder layers"),
        ("evs", "compare the frames of a video"),
        ("flowcut", "needs to prune between the layers of the vision tower"),
        ("vflowopt", 'Write "progressive": false'),
    ],
)
def test_strategies_that_cannot_run_in_vllm_are_refused(strategy: str, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        check(llava(strategy=strategy))


@pytest.mark.parametrize("strategy", ["fopru", "visionzip"])
def test_budgets_that_adapt_to_the_image(strategy: str) -> None:
    with pytest.raises(UnsupportedError, match="how many tokens an image keeps is then known only after"):
        check(llava(strategy=strategy, keep_ratio=0.5, mass=0.5))
    with pytest.raises(UnsupportedError, match="how many tokens an image keeps is then known only after"):
        check(llava(strategy=f"{strategy}:mass=0.5+divprune"))


def test_text_guided_strategy() -> None:
    class Relevance:
        def __call__(self, *args: Any) -> Any: ...

    from tokenprune import CDPruner
    from tokenprune.serving.vllm.startup.refusals import check_strategy

    with pytest.raises(UnsupportedError, match="needs the question"):
        check_strategy(CDPruner(relevance=None), 6, "TokenPruneLlava")


def test_needs() -> None:
    with pytest.raises(UnsupportedError, match=r"needs a CLS token.* such as DivPrune\.$"):
        check(llava(vision=transformers.SiglipVisionConfig(num_hidden_layers=4), score="cls"))
    with pytest.raises(UnsupportedError, match="--enable-mm-embeds takes images that were encoded elsewhere"):
        check(llava(), embeds=True)
    with pytest.raises(UnsupportedError, match=r"attends within windows, which would count .* such as FoPru"):
        check(llava(transformers.MistralConfig(sliding_window=4096), strategy="downsample"))
    anyres = transformers.LlavaNextConfig(architectures=["TokenPruneLlavaNext"])
    anyres.tokenprune = {"strategy": "divprune", "keep_ratio": 0.25}
    check(anyres, "TokenPruneLlavaNext")
    mistral = transformers.Mistral3Config(architectures=["TokenPruneMistral3"])
    mistral.tokenprune = anyres.tokenprune
    check(mistral, "TokenPruneMistral3")
    with pytest.raises(UnsupportedError, match="TokenPruneLlavaNext reads from the pixels where"):
        check(anyres, "TokenPruneLlavaNext", embeds=True)
    with pytest.raises(UnsupportedError, match="TokenPruneMistral3 reads from the pixels where"):
        check(mistral, "TokenPruneMistral3", embeds=True)


class MiniMaxM3(transformers.PreTrainedConfig):
    """Like vLLM's own config class, whose vision tower is a dict."""

    model_type = "minimax_m3_vl"


def test_a_model_that_vllm_reads_as_it_is_published() -> None:
    config: Any = MiniMaxM3(architectures=["TokenPruneMiniMaxM3"])
    config.vision_config = {"num_hidden_layers": 3, "num_attention_heads": 2}
    config.text_config = transformers.LlamaConfig(num_hidden_layers=6)
    config.vision_feature_select_strategy = "full"
    config.tokenprune = {**FOPRU, "layer": 2}
    check(config, "TokenPruneMiniMaxM3")
    with pytest.raises(UnsupportedError, match="TokenPruneMiniMaxM3 reads from the pixels where"):
        check(config, "TokenPruneMiniMaxM3", embeds=True)
    config.tokenprune = {**FOPRU, "layer": 3}
    with pytest.raises(UnsupportedError, match="layer=3 is not in the vision tower: write 0 to 2"):
        check(config, "TokenPruneMiniMaxM3")
    config.text_config = transformers.MiniMaxM3VLTextConfig(num_hidden_layers=6)
    with pytest.raises(UnsupportedError, match="as transformers writes it, and vLLM reads such models only as"):
        check(config, "TokenPruneMiniMaxM3")


def test_settings_among_the_options_of_the_processor() -> None:
    check(llava(), options={"size": {"shortest_edge": 9}})
    for written in ({"keep_ratio": 0.5}, {"images_kwargs": {"keepratio": 0.5}}):
        with pytest.raises(SettingError, match="'keep_ratio' is a setting of the whole engine"):
            check(llava(), options=written)


def test_encoder_layers() -> None:
    """The projector gets the output of layer 2 of 4, and vLLM does not build the last."""
    check(llava(layer=-2))
    with pytest.raises(UnsupportedError, match="layer=-1 of this vision tower is not built by vLLM"):
        check(llava(layer=-1))
    with pytest.raises(UnsupportedError, match="layer=9 is not in the vision tower"):
        check(llava(layer=9))
    qwen = transformers.Qwen2_5_VLConfig(vision_config={"depth": 4, "fullatt_block_indexes": [1, 3]})
    qwen.architectures = ["TokenPruneQwen2_5_VL"]
    qwen.tokenprune = {**FOPRU, "layer": 1}
    check(qwen, "TokenPruneQwen2_5_VL")
    qwen.tokenprune = {**FOPRU, "layer": 2}
    with pytest.raises(UnsupportedError, match="layer=2 of this vision tower attends within small windows"):
        check(qwen, "TokenPruneQwen2_5_VL")


@pytest.mark.parametrize(
    ("vision", "fitting"), [(transformers.CLIPVisionConfig, "default"), (transformers.SiglipVisionConfig, "full")]
)
def test_visual_tokens_that_are_not_the_patches(vision: Any, fitting: str) -> None:
    """Their places in the image would be off by one, and the vision tower's attention would not fit."""
    config = llava(vision=vision(num_hidden_layers=4))
    check(config)
    config.vision_feature_select_strategy = "full" if fitting == "default" else "default"
    with pytest.raises(UnsupportedError, match=rf'Write "vision_feature_select_strategy": "{fitting}" in --hf-overr'):
        check(config)


def test_language_models() -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "long_factor": [2.0], "short_factor": [1.0]}
    with pytest.raises(UnsupportedError, match=r"of type 'longrope'.*--position-ids compact"):
        check(llava(transformers.LlamaConfig(rope_parameters=rope)))
    check(llava(transformers.LlamaConfig(rope_parameters=rope), position_ids="compact"))
    with pytest.raises(UnsupportedError, match="of type 'longrope'"):
        check(gemma3(full_attention=rope), "TokenPruneGemma3")


@pytest.mark.parametrize("name", ["mrope_section", "xdrope_section"])
def test_components_of_position_ids(name: str) -> None:
    """Of HunyuanOCR, whose published config.json has another name for them."""
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 1000.0, "factor": 1.0, name: [16] * 4}
    text: dict[str, Any] = {"num_hidden_layers": 6, "num_attention_heads": 4, "head_dim": 128}
    for sections in ([16] * 4, [22, 21, 21]):
        config: Any = transformers.HunYuanVLConfig(text_config={**text, "rope_parameters": {**rope, name: sections}})
        config.architectures, config.tokenprune = ["TokenPruneHunyuanVL"], FOPRU
        if len(sections) == 4:
            check(config, "TokenPruneHunyuanVL")
            continue
        with pytest.raises(UnsupportedError, match=r"mrope_section=\[22, 21, 21\]: of this family, only models whose"):
            check(config, "TokenPruneHunyuanVL")


def test_an_architecture_of_another_model_is_refused() -> None:
    dino = llava(vision=transformers.Dinov2Config())
    with pytest.raises(UnsupportedError, match=r'Write "architectures": \["TokenPruneTransformers"\]'):
        check(dino)
    check(dino, "TokenPruneTransformers")
    check(llava(), "TokenPruneTransformers")
    pixtral = llava(vision=transformers.PixtralVisionConfig(), strategy="divprune")
    pixtral.vision_feature_select_strategy = "full"
    check(pixtral, "TokenPruneTransformers")
    pixtral.tokenprune = FOPRU
    with pytest.raises(UnsupportedError, match=r"does not show the attention of a pixtral tower\. Use a strategy that"):
        check(pixtral, "TokenPruneTransformers")
    with pytest.raises(UnsupportedError, match=r'Write "architectures": \["TokenPruneLlava"\]'):
        check(llava(), "TokenPruneQwen2VL")
