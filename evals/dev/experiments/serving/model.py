"""A LLaVA-1.5 with random weights for vLLM to load: times do not depend on their values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from tokenprune.evals.arguments.parser import script_parser

SIDE, PATCH, IMAGE = 336, 14, "<image>"
CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %} <image> "
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
)


def write(folder: Path, width: int, layers: int, tower_width: int, tower_layers: int, *, weights: bool = True) -> None:
    """Write a model with LLaVA-1.5's grid of 24 x 24 visual tokens, and a vocabulary of numbered words. Without its
    weights, for which vLLM's --load-format dummy draws numbers."""
    words = ["<pad>", "<end>", IMAGE, *(f"w{i}" for i in range(997))]
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokens.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", eos_token="<end>", additional_special_tokens=[IMAGE]
    )
    tower = CLIPVisionConfig(
        hidden_size=tower_width,
        intermediate_size=4 * tower_width,
        num_hidden_layers=tower_layers,
        num_attention_heads=tower_width // 64,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=11 * width // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    config = LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=2,
        image_seq_length=(SIDE // PATCH) ** 2,
        architectures=[LlavaForConditionalGeneration.__name__],
    )
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT,
    )
    processor.save_pretrained(folder)
    if not weights:
        config.save_pretrained(folder)
        return
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    # vLLM expects the CLIP tower's weights under the names of published checkpoints.
    renamed = {
        name.replace("vision_tower.", "vision_tower.vision_model.", 1)
        if "vision_tower." in name and "vision_model." not in name
        else name: weight
        for name, weight in model.state_dict().items()
    }
    model.save_pretrained(folder, state_dict=renamed)


def operations(folder: Path, n_visual: int, n_text: int) -> tuple[int, int]:
    """Return the floating-point operations of the vision tower, and of the language model on a prompt with so many
    visual tokens and words, without running either."""
    config: Any = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
        embeddings = torch.empty(1, n_visual + n_text, config.text_config.hidden_size)
        side = config.vision_config.image_size
        with torch.no_grad(), FlopCounterMode(display=False) as tower:
            model.get_image_features(torch.empty(1, 3, side, side))
        with torch.no_grad(), FlopCounterMode(display=False) as prefill:
            mask = torch.empty(1, 1, len(embeddings[0]), len(embeddings[0]))  # given, so that none is built
            model.model.language_model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
    return tower.get_total_flops(), prefill.get_total_flops()


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("folder", type=Path, help="folder to write to")
    for name, default in (("width", 1024), ("layers", 16), ("tower-width", 512), ("tower-layers", 12)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{name.replace('-', ' ')}")
    parser.add_argument("--no-weights", action="store_true", help="for vLLM's --load-format dummy, which needs none")
    options = parser.parse_args()
    sizes = options.width, options.layers, options.tower_width, options.tower_layers
    write(options.folder, *sizes, weights=not options.no_weights)


if __name__ == "__main__":
    main()
