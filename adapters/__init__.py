"""Model adapters: the only files that know Hugging Face's module and config names. See README.md in this folder."""

if __name__ != "tokenprune.adapters":  # a second name would make a second copy of every class
    raise ImportError("import tokenprune.adapters, not adapters")

# One line per family; importing it registers its adapter.
from tokenprune.adapters import apertus as apertus
from tokenprune.adapters import cohere_vision as cohere_vision
from tokenprune.adapters import deepseek_ocr2 as deepseek_ocr2
from tokenprune.adapters import deepseek_vl as deepseek_vl
from tokenprune.adapters import emu3 as emu3
from tokenprune.adapters import ernie4_5_vl as ernie4_5_vl
from tokenprune.adapters import fuyu as fuyu
from tokenprune.adapters import gemma3 as gemma3
from tokenprune.adapters import gemma3n as gemma3n
from tokenprune.adapters import gemma4 as gemma4
from tokenprune.adapters import glm4v as glm4v
from tokenprune.adapters import got_ocr2 as got_ocr2
from tokenprune.adapters import granite4_vision as granite4_vision
from tokenprune.adapters import granite_docling as granite_docling
from tokenprune.adapters import hunyuan_vl as hunyuan_vl
from tokenprune.adapters import hy_v4_vl as hy_v4_vl
from tokenprune.adapters import hyperclovax as hyperclovax
from tokenprune.adapters import idefics2 as idefics2
from tokenprune.adapters import idefics3 as idefics3
from tokenprune.adapters import inkling2 as inkling2
from tokenprune.adapters import internvl as internvl
from tokenprune.adapters import kimi as kimi
from tokenprune.adapters import lfm2_vl as lfm2_vl
from tokenprune.adapters import lighton_ocr as lighton_ocr
from tokenprune.adapters import llama4 as llama4
from tokenprune.adapters import llava as llava
from tokenprune.adapters import llava_next as llava_next
from tokenprune.adapters import llava_next_video as llava_next_video
from tokenprune.adapters import llava_onevision as llava_onevision
from tokenprune.adapters import minicpm as minicpm
from tokenprune.adapters import mistral3 as mistral3
from tokenprune.adapters import molmo2 as molmo2
from tokenprune.adapters import nemotron as nemotron
from tokenprune.adapters import ovis2 as ovis2
from tokenprune.adapters import paddleocr_vl as paddleocr_vl
from tokenprune.adapters import paligemma as paligemma
from tokenprune.adapters import qianfan_ocr as qianfan_ocr
from tokenprune.adapters import qwen_omni as qwen_omni
from tokenprune.adapters import qwen_vl as qwen_vl
from tokenprune.adapters import step3p7 as step3p7
from tokenprune.adapters import unlimited_ocr as unlimited_ocr
from tokenprune.adapters import verified as verified
from tokenprune.adapters import video_llama_3 as video_llama_3
from tokenprune.adapters import video_llava as video_llava
from tokenprune.adapters import vip_llava as vip_llava
from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import ADAPTERS, adapter_for, register_adapter
from tokenprune.adapters.towers import Tower, register_tower

__all__ = ["ADAPTERS", "GenericAdapter", "ModelAdapter", "Tower", "adapter_for", "register_adapter", "register_tower"]
