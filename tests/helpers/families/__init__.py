"""The model families of the contract matrix, by the names that its test cases have."""

from __future__ import annotations

from .base import Family
from .cohere import AyaVision, Cohere2Vision
from .gemma import Gemma3, PaliGemma
from .gemma3n import Gemma3n
from .gemma4 import Gemma4, Gemma4MoE, Gemma4Unified
from .idefics import Idefics3, SmolVLM
from .internvl import InternVL
from .kimi import KimiK25
from .llama4 import Llama4
from .llava import TOWERS, Llava, VideoLlava, VipLlava
from .llava_next import LlavaNext, LlavaNextVideo, LlavaOnevision
from .mistral3 import LlavaPixtral, Mistral3
from .molmo2 import Molmo2
from .packed.compass import CohereCompass
from .packed.cosmos3_edge import Cosmos3Edge
from .packed.ernie import Ernie4_5VL
from .packed.glm import Glm4v, Glm46V, Glmga, GlmMoe, GlmOcr
from .packed.hunyuan import HunyuanVL
from .packed.muse import MuseGlimmer, MuseSpark
from .packed.omni import Qwen2_5Omni, Qwen3Omni
from .packed.paddle_ocr import PaddleOCRVL
from .packed.qwen3_5 import Qwen3_5, Qwen3_5Moe
from .packed.qwen3_vl_moe import Cosmos3Omni, Qwen3VLMoe
from .packed.qwen4_exp import Qwen4Exp
from .packed.qwen_towers import Exaone4_5, HyperClovaX
from .packed.video_llama_3 import VideoLlama3
from .qwen_vl import Qwen2_5_VL, Qwen2VL, Qwen3VL
from .sparse.indexed import HYV4VL, Dots3Note, MistralLarge4
from .states.lfm import Lfm2VL, Lfm3VL
from .states.minicpm import MiniCPMOcr, MiniCPMV46, MiniCPMV47
from .states.nemotron import NemotronOmni
from .tiled.codes import Apertus1p5, Emu3, Fuyu
from .tiled.crops import Step3p7, UnlimitedOcr
from .tiled.deepseek_vl import DeepseekVL, DeepseekVLHybrid, Janus
from .tiled.granite import Granite4Vision, GraniteDocling
from .tiled.idefics2 import Idefics2
from .tiled.inkling import Inkling2, Inkling2Loop
from .tiled.ocr import DeepseekOcr2, GotOcr2, LightOnOcr, QianfanOcr
from .tiled.others import Aria, FastVlm, Ovis2, PerceptionLM

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(Llava(f"llava-{kind}", kind) for kind in TOWERS),
        LlavaPixtral("llava-pixtral"),
        VipLlava("vip-llava"),
        LlavaNext("llava-next"),
        LlavaOnevision("llava-onevision"),
        LlavaNextVideo("llava-next-video"),
        VideoLlava("video-llava"),
        Qwen2VL("qwen2-vl"),
        Qwen2_5_VL("qwen2.5-vl"),
        Qwen3VL("qwen3-vl"),
        Qwen3VLMoe("qwen3-vl-moe"),
        Cosmos3Omni("cosmos3-omni"),
        Qwen3_5("qwen3.5"),
        Qwen3_5Moe("qwen3.5-moe"),
        Glm4v("glm4v"),
        Glm46V("glm4.6v"),
        Glmga("glmga"),
        GlmMoe("glm4v-moe"),
        GlmOcr("glm-ocr"),
        PaddleOCRVL("paddleocr-vl"),
        Qwen2_5Omni("qwen2.5-omni"),
        Qwen3Omni("qwen3-omni"),
        HunyuanVL("hunyuan-vl"),
        VideoLlama3("video-llama-3"),
        Ernie4_5VL("ernie4.5-vl"),
        Exaone4_5("exaone4.5"),
        HyperClovaX("hyperclovax"),
        Cosmos3Edge("cosmos3-edge"),
        Qwen4Exp("qwen4-exp"),
        InternVL("internvl"),
        Idefics3("idefics3"),
        SmolVLM("smolvlm"),
        Gemma3("gemma3", window=512),
        Gemma3("gemma3-window", window=12),
        PaliGemma("paligemma"),
        Gemma3n("gemma3n"),
        Gemma4("gemma4"),
        Gemma4MoE("gemma4-moe"),
        Gemma4Unified("gemma4-unified"),
        NemotronOmni("nemotron-omni"),
        Molmo2("molmo2"),
        Dots3Note("dots3-note"),
        HYV4VL("hy-v4-vl"),
        MistralLarge4("mistral-large4"),
        MuseSpark("muse-spark"),
        MuseGlimmer("muse-glimmer"),
        CohereCompass("cohere-compass"),
        AyaVision("aya-vision"),
        Cohere2Vision("cohere2-vision"),
        Lfm3VL("lfm3-vl"),
        Lfm2VL("lfm2-vl"),
        Llama4("llama4"),
        MiniCPMOcr("minicpm-ocr"),
        MiniCPMV47("minicpmv4_7"),
        MiniCPMV46("minicpmv4_6"),
        KimiK25("kimi-k25"),
        Mistral3("mistral3"),
        DeepseekVL("deepseek-vl"),
        DeepseekVLHybrid("deepseek-vl-hybrid"),
        Janus("janus"),
        LightOnOcr("lighton-ocr"),
        QianfanOcr("qianfan-ocr"),
        GotOcr2("got-ocr2"),
        Ovis2("ovis2"),
        Aria("aria"),
        FastVlm("fast-vlm"),
        PerceptionLM("perception-lm"),
        Granite4Vision("granite4-vision"),
        GraniteDocling("granite-docling"),
        Idefics2("idefics2"),
        DeepseekOcr2("deepseek-ocr2"),
        Step3p7("step3p7"),
        UnlimitedOcr("unlimited-ocr"),
        Apertus1p5("apertus1p5"),
        Emu3("emu3"),
        Fuyu("fuyu"),
        Inkling2("inkling2"),
        Inkling2Loop("inkling2-loop"),
    )
}

__all__ = ["FAMILIES", "Family"]
