"""Changes with which vLLM's processors take small images, since they have the published sizes in their code, and with
which some models run at all."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import json
from functools import cache
from importlib.util import find_spec
from typing import Any

import transformers

from helpers.served.stored import read

#: The side of a patch, the fewest and the most pixels of an image, and the most visual tokens of one of Muse Glimmer.
PATCH, LEAST, MOST, MOST_TOKENS = 14, 56**2, 196**2, 49


@cache
def serve_small_isaac() -> None:
    from vllm.transformers_utils.processors.isaac import IsaacImageProcessor

    # The side of a patch in pixels, and the most and the fewest patches of an image.
    IsaacImageProcessor.__init__.__defaults__ = (16, 196, 16, 2)


@cache
def serve_small_ovis2_5() -> None:
    """Also let vLLM take short videos, of which it counts patches instead of visual tokens, and the marks' token IDs of
    the tests' tokenizer."""
    from vllm.model_executor.models import ovis2_5
    from vllm.multimodal.parse import ImageSize

    words = json.loads(read("ovis2_5")["files"]["tokenizer.json"])["model"]["vocab"]
    marks = ("<ovis_image_start>", "<ovis_image_end>", "<ovis_video_start>", "<ovis_video_end>")
    ovis2_5.INDICATOR_IDS = [words[mark] for mark in marks]
    info = ovis2_5.Ovis2_5ProcessingInfo
    info.get_image_size_with_most_features = lambda self: ImageSize(14 * PATCH, 14 * PATCH)
    info.get_num_frames_with_most_features = lambda self, *lengths: 2
    ovis2_5.Ovis2_5Processor.preprocess_multidata.__defaults__ = (None, None, True, LEAST, MOST, "pt")


@cache
def make_opencua_whole() -> None:
    """Make vLLM 0.32's processor of OpenCUA keep its parts, as vLLM 0.33's does with current transformers. Without
    them, 0.32 does not start with OpenCUA."""
    from vllm.model_executor.models.opencua import OpenCUAProcessor

    if "get_attributes" not in vars(OpenCUAProcessor):
        parts = ["image_processor", "tokenizer", "video_processor"]
        OpenCUAProcessor.get_attributes = classmethod(lambda cls: parts)


@cache
def resize_as_transformers() -> None:
    """Make vLLM 0.32's image processor resize images like transformers' processor, which vLLM 0.33 uses."""
    if find_spec("vllm.transformers_utils.processors.muse_glimmer") is None:
        return
    from torchvision.transforms.functional import pil_to_tensor  # before vLLM's import, torch would look for Triton
    from vllm.transformers_utils.processors import muse_glimmer

    class Images(muse_glimmer.MuseGlimmerImageProcessor):
        def __init__(self, **settings: Any) -> None:
            super().__init__(max_image_tokens=MOST_TOKENS, **settings)

        def preprocess_image(self, image: Any) -> Any:
            theirs = transformers.MuseGlimmerImageProcessor(max_image_tokens=MOST_TOKENS)
            pixels = pil_to_tensor(image.convert("RGB"))[None]
            resized = theirs.resize(pixels, PATCH, theirs.merge_size, MOST_TOKENS, theirs.resample)
            *_, n_tokens = self.compute_image_size(image.width, image.height)
            colors = theirs.image_mean, theirs.image_std
            return theirs.rescale_and_normalize(resized, True, theirs.rescale_factor, True, *colors)[0], n_tokens

    if muse_glimmer.MuseGlimmerImageProcessor.__name__ != Images.__name__:
        muse_glimmer.MuseGlimmerImageProcessor = Images


@cache
def mask_padding_of_aria() -> None:
    """Let patches attend only to the image, as in transformers: in vLLM, they also attend to the padding beside it."""
    from vllm.model_executor.models.aria import AriaVisionTransformer

    make = AriaVisionTransformer.__init__

    def masking(self: Any, *args: Any, **named: Any) -> None:
        make(self, *args, **named)
        self.apply_encoder_attention_mask = True

    AriaVisionTransformer.__init__ = masking
