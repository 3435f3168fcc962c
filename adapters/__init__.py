"""Model adapters: the only files that know Hugging Face's module and config names. See README.md in this folder."""

if __name__ != "tokenprune.adapters":  # a second name would make a second copy of every class
    raise ImportError("import tokenprune.adapters, not adapters")

from tokenprune.adapters import gemma3 as gemma3  # one line per family; importing it registers its adapter
from tokenprune.adapters import glm4v as glm4v
from tokenprune.adapters import idefics3 as idefics3
from tokenprune.adapters import internvl as internvl
from tokenprune.adapters import llava as llava
from tokenprune.adapters import llava_next as llava_next
from tokenprune.adapters import llava_next_video as llava_next_video
from tokenprune.adapters import llava_onevision as llava_onevision
from tokenprune.adapters import mistral3 as mistral3
from tokenprune.adapters import paligemma as paligemma
from tokenprune.adapters import qwen_vl as qwen_vl
from tokenprune.adapters import verified as verified
from tokenprune.adapters import video_llava as video_llava
from tokenprune.adapters import vip_llava as vip_llava
from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import ADAPTERS, adapter_for, register_adapter
from tokenprune.adapters.towers import Tower, register_tower

__all__ = ["ADAPTERS", "GenericAdapter", "ModelAdapter", "Tower", "adapter_for", "register_adapter", "register_tower"]
