"""RADIO, the vision tower of Nemotron's models: vLLM builds it from `args` in its config, which published checkpoints
have and transformers does not save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenprune.errors import UnsupportedError

#: The numbers of layers and heads of the towers that vLLM builds.
SIZES = {
    "vit_small_patch16_224": (12, 6),
    "vit_base_patch16_224": (12, 12),
    "vit_large_patch16_224": (24, 16),
    "vit_huge_patch16_224": (32, 16),
    "vit_so400m_patch16_224": (27, 16),  # from vLLM 0.33 on
}


def size(vision_config: Any) -> tuple[int, int] | None:
    """How many layers and heads a tower has; None if it is not a RADIO."""
    args = getattr(vision_config, "args", None)
    return SIZES.get(args.get("model", "")) if isinstance(args, Mapping) else None


def n_prefix(vision_config: Any) -> int:
    """How many class and register tokens come before the patches of an image. Raises UnsupportedError for a config from
    which vLLM cannot build the tower."""
    args = getattr(vision_config, "args", None)
    if not isinstance(args, Mapping):
        raise UnsupportedError(
            'vision_config in config.json has no "args", from which vLLM builds the vision tower: transformers does '
            "not save it. Name a checkpoint as it is published, such as "
            "nvidia/Nemotron-3-Nano-Omni-30B-A3B-Reasoning-BF16."
        )
    if args.get("model") not in SIZES:
        raise UnsupportedError(
            f'vision_config in config.json names the vision tower {args.get("model")!r} in "args", and vLLM builds '
            f"only {', '.join(SIZES)}. Name another checkpoint."
        )
    teachers = {teacher["name"] for teacher in args.get("teachers") or ()}
    n_classes = len(teachers) if args.get("cls_token_per_teacher") else 1
    if registers := args.get("cpe_num_registers"):  # read from vLLM 0.34 on
        return n_classes + registers
    multiple = args.get("register_multiple")
    return n_classes + (multiple - n_classes % multiple if multiple else 0)
