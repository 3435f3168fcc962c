"""Model adapters: the only files that know Hugging Face's module and config names. See README.md in this folder.

base            the contract: every question that an adapter answers
generic         adapters for models that follow transformers' common interface
towered         base classes for families with that interface and a known vision tower
families        one file per model family
towers          vision towers
layouts         layouts of visual tokens that several families share
decoder         language models
registry        finds the adapter for a model
record          what else is known of a class of models
refused         classes without an adapter, and why
tested          results of `make matrix` for every class
devices         where a model computes, even if it is offloaded or shared by several processes
conventions     what all supported transformers models have in common; unwraps torch.compile, PEFT and the like
retrieval       ColPali and its relatives
clip_relevance  the relevance that CDPruner needs, computed by CLIP
"""

if __name__ != "tokenprune.adapters":  # a second name would make a second copy of every class
    raise ImportError("import tokenprune.adapters, not adapters")

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import ADAPTERS, adapter_for, register_adapter
from tokenprune.adapters.towers import Tower, register_tower

__all__ = ["ADAPTERS", "GenericAdapter", "ModelAdapter", "Tower", "adapter_for", "register_adapter", "register_tower"]
