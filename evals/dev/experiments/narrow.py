"""Models with the layers of a real shape, so narrow that a forward is almost only Python."""

from copy import deepcopy
from typing import Any

WIDTH = 64


def narrowed(config: Any) -> Any:
    """Return a copy with a width of WIDTH in the language model and the vision tower."""
    config = deepcopy(config)
    text, vision = config.get_text_config(), config.vision_config
    for part in (text, vision):
        part.hidden_size = part.intermediate_size = WIDTH
        part.num_attention_heads = 4
    text.num_key_value_heads, text.head_dim = 2, WIDTH // 4
    return config
