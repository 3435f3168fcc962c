"""Families whose language models attend to the tokens that an indexer chooses."""

import transformers

from helpers.families.base import Family

from .minimax import MiniMaxM3

#: Families that can be pruned only with compact position IDs and without padding, tested in test_compact_only.py.
COMPACT_ONLY: dict[str, Family] = {}
if hasattr(transformers, MiniMaxM3.class_name):
    COMPACT_ONLY["minimax-m3"] = MiniMaxM3("minimax-m3")

__all__ = ["COMPACT_ONLY"]
