"""Families at the shapes of published checkpoints (heads, patches, tiles, kinds of layers), with few layers and narrow
hidden states, and prompts with the token counts of their real image processors."""

from collections.abc import Callable
from typing import Any

import pytest
import transformers
from helpers.contract.published import Placeholders, assert_pruned_is_masked, build, image_of, prompt_of
from helpers.families import FAMILIES
from helpers.families.base import BREAK, END, IMAGE, START

from tokenprune import DivPrune, FoPru, Random, Strategy

HIDDEN = 128

Publish = Callable[[Any], Any]


def tokens_of(name: str) -> dict[str, Any]:
    family: Any = FAMILIES[name]
    return family.tokens()


def gemma4(config: Any) -> Any:
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_key_value_heads": 12}
    vision |= {"head_dim": 64, "patch_size": 16, "pooling_kernel_size": 3, "num_hidden_layers": 2}
    text = config.get_text_config().to_dict()
    text |= {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "sliding_window": 512}
    text |= {"hidden_size_per_layer_input": 256, "hidden_size": HIDDEN, "global_head_dim": 512}
    del text["per_layer_config"]
    return type(config)(vision_config=vision, audio_config=None, text_config=text, **tokens_of("gemma4"))


def gemma4_unified(config: Any) -> Any:
    vision = {"patch_size": 16, "pooling_kernel_size": 3, "mm_embed_dim": HIDDEN, "output_proj_dims": HIDDEN}
    text = config.get_text_config().to_dict()
    text |= {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 1024}
    text |= {"hidden_size": HIDDEN, "global_head_dim": 512}
    del text["per_layer_config"]
    return type(config)(vision_config=vision, audio_config=None, text_config=text, **tokens_of("gemma4-unified"))


def kimi(config: Any) -> Any:
    vision = {"num_hidden_layers": 2}
    text = {**config.get_text_config().to_dict(), "hidden_size": HIDDEN, "num_attention_heads": 64}
    text |= {"num_key_value_heads": 64, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    text |= {"qk_nope_head_dim": 128, "v_head_dim": 128, "head_dim": 64, "qk_head_dim": 192}
    return type(config)(vision_config=vision, text_config=text, tie_word_embeddings=False, **tokens_of("kimi-k25"))


def llama4(config: Any) -> Any:
    vision = {"hidden_size": 1408, "intermediate_size": 5632, "num_attention_heads": 16, "image_size": 336}
    vision |= {"patch_size": 14, "num_hidden_layers": 2, "vision_output_dim": 4096}
    text = {**config.get_text_config().to_dict(), "hidden_size": HIDDEN, "num_attention_heads": 40}
    text |= {"num_key_value_heads": 8, "head_dim": 128, "attention_chunk_size": 256}
    return type(config)(
        vision_config=vision, text_config=text, image_token_index=IMAGE, boi_token_index=START, eoi_token_index=END
    )


def minicpm(config: Any) -> Any:
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "image_size": 980}
    vision |= {"patch_size": 14, "num_hidden_layers": 2}
    text = {**config.get_text_config().to_dict(), "hidden_size": HIDDEN, "num_attention_heads": 8}
    text |= {"num_key_value_heads": 2, "head_dim": 256, "linear_key_head_dim": 128, "linear_value_head_dim": 128}
    return type(config)(
        vision_config=vision, text_config=text, insert_layer_id=0, image_token_id=IMAGE, video_token_id=None
    )


def minicpm_on_canvas(config: Any) -> Any:
    markers: Any = FAMILIES["minicpmv4_7"]
    plain = minicpm(config)
    for name, token in markers.settings().items():
        setattr(plain, name, token)
    return plain


def gemma4_runs(inputs: Any) -> list[Placeholders]:
    return [[START, int(n)] for n in inputs.pop("num_soft_tokens_per_image")]


def kimi_runs(inputs: Any) -> list[Placeholders]:
    return [[START, int(n) // 4] for n in inputs["image_grid_thw"].prod(-1)]


def llama4_runs(inputs: Any) -> list[Placeholders]:
    inputs.pop("aspect_ratios")
    tile, overview, n_tiles = 87, BREAK, len(inputs["pixel_values"])
    return [*[[START if i == 0 else tile, 144] for i in range(n_tiles - 1)], [overview, 144]]


def minicpm_runs(inputs: Any) -> list[Placeholders]:
    from helpers.families.states.minicpm import SLICE_END, SLICE_START  # older transformers lacks these

    counts = [int(n) // 16 for n in inputs["target_sizes"].prod(-1)]
    for name in ("grids", "num_patches_per_image"):
        inputs.pop(name)
    return [[START, counts[0]], *[[END if i == 0 else SLICE_END, SLICE_START, n] for i, n in enumerate(counts[1:])]]


#: Family -> its published configuration, image processor, and runs of placeholders; the height and width of an image;
#: the number of its visual tokens, and of images in the report.
PUBLISHED: dict[str, tuple[Publish, str, Callable[[Any], list[Placeholders]], tuple[int, int], int, int]] = {
    "gemma4": (gemma4, "Gemma4ImageProcessor", gemma4_runs, (480, 640), 266, 1),
    "gemma4-unified": (gemma4_unified, "Gemma4UnifiedImageProcessor", gemma4_runs, (480, 640), 266, 1),
    "kimi-k25": (kimi, "Kimi_K25ImageProcessor", kimi_runs, (480, 640), 414, 1),
    "llama4": (llama4, "Llama4ImageProcessor", llama4_runs, (336, 672), 3 * 144, 1),
    "minicpmv4_6": (minicpm, "MiniCPMV4_6ImageProcessor", minicpm_runs, (480, 640), 63 + 2 * 70, 3),
    "minicpmv4_7": (minicpm_on_canvas, "MiniCPMV4_6ImageProcessor", minicpm_runs, (480, 640), 63 + 2 * 70, 3),
}
#: Families without a vision tower, which have no attention to read.
OTHER_STRATEGIES: dict[str, tuple[Strategy, ...]] = {
    "gemma4-unified": (Random(keep_ratio=0.25), DivPrune(keep_ratio=0.25))
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_at_published_shapes(name: str) -> None:
    publish, processor, runs_of, size, n_visual, n_images = PUBLISHED[name]
    plain: Any = FAMILIES[name]

    class Published(type(plain)):  # type: ignore[misc]
        def config(self) -> Any:
            return publish(super().config())

    family: Any = Published(name)
    model = build(family)
    inputs = dict(getattr(transformers, processor)()(images=[image_of(*size)], return_tensors="pt"))
    inputs["pixel_values"] = inputs["pixel_values"].float()
    runs = runs_of(inputs)
    strategies = OTHER_STRATEGIES.get(name, (Random(keep_ratio=0.25), FoPru(keep_ratio=0.25)))
    assert_pruned_is_masked(family, model, prompt_of(family, inputs, runs), n_visual, n_images, strategies)
