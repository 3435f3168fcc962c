"""MiniCPM-V 2.5 to 4.5 and MiniCPM-o: an overview and slices of any size, each of which a resampler reads into equally
many visual tokens. They are pruned one by one, as are the frames of a video; audio is not pruned."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from torch import Tensor
from vllm.model_executor.models import minicpmo, minicpmv
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.minicpm import tile_image
from tokenprune.encoded import EncodedImage
from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.serving.vllm.models.minicpm import SlicesProcessor
from tokenprune.serving.vllm.processor.elsewhere import misfit
from tokenprune.serving.vllm.worker.capture import ResamplerCapture
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import resampled_images
from tokenprune.tokens import Layout

#: What comes before the names of a video's fields and arguments.
PREFIXES = {"image": "", "video": "video_"}


class ResampledProcessor(SlicesProcessor):
    pruned = tuple(PREFIXES)

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        """The overview and each slice, or each frame. vLLM writes the prompt without looking at options of a request,
        such as max_slice_nums, so their number may not be the one that is encoded."""
        n_queries = self.info.get_hf_config().query_num
        features, grids = item.get(f"{modality}_embeds"), item.get(f"{PREFIXES[modality]}tgt_sizes")
        if features is not None and len(features.data) != n_visual:
            raise misfit(len(features.data), f"{n_visual} at its size")
        if grids is not None and len(grids.data) * n_queries != n_visual:
            raise SettingError(
                f"mm_processor_kwargs: with these options, one {modality} is cut into {len(grids.data)} parts, but "
                f"vLLM has written the prompt for {n_visual // n_queries}. Leave out max_slice_nums and the like."
            )
        return (n_queries,) * (n_visual // n_queries)


class MiniCPMVProcessor(ResampledProcessor, minicpmv.MiniCPMVMultiModalProcessor): ...


class MiniCPMOProcessor(ResampledProcessor, minicpmo.MiniCPMOMultiModalProcessor): ...


class PrunedResampled(PrunedModel):
    """Shared by all versions. A visual token is a query, without a place in the image."""

    pruned = ResampledProcessor.pruned

    @property
    def decoder(self) -> Any:
        return self.llm

    def make_capture(self) -> ResamplerCapture:
        layer = self.vpm.encoder.layers[self.attention_layer]
        return ResamplerCapture(layer, layer.self_attn.scale, self.resampler.attn)

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        n_queries = self.config.query_num
        layout = Layout.raster((1, 1, n_queries))
        prefix = next((start for start in PREFIXES.values() if f"{start}pixel_values" in arguments), None)
        if prefix is None:  # the images were encoded elsewhere
            return [EncodedImage(layout, {})] * (sum(map(len, features)) // n_queries)
        tiles = chain.from_iterable(arguments[f"{prefix}pixel_values"])
        grids = [grid for sizes in arguments[f"{prefix}tgt_sizes"] for grid in sizes.tolist()]
        sizes = [rows * columns for rows, columns in grids]
        return resampled_images(
            self, layout, sizes, lambda: (tile_image(tile, *grid) for tile, grid in zip(tiles, grids, strict=True))
        )


class PrunedV2_5(PrunedResampled, minicpmv.MiniCPMV2_5, SupportsMRoPE): ...


class PrunedV2_6(PrunedResampled, minicpmv.MiniCPMV2_6, SupportsMRoPE): ...


class PrunedV4_0(PrunedResampled, minicpmv.MiniCPMV4_0, SupportsMRoPE): ...


class PrunedV4_5(PrunedResampled, minicpmv.MiniCPMV4_5, SupportsMRoPE): ...


class PrunedO2_6(PrunedResampled, minicpmo.MiniCPMO2_6, SupportsMRoPE): ...


class PrunedO4_5(PrunedResampled, minicpmo.MiniCPMO4_5, SupportsMRoPE): ...


#: The versions in a config.json. vLLM has a class for each.
V_VERSIONS: Mapping[str, type] = {"2.5": PrunedV2_5, "2.6": PrunedV2_6, "4.0": PrunedV4_0, "4.5": PrunedV4_5}
O_VERSIONS: Mapping[str, type] = {"2.6": PrunedO2_6, "4.5": PrunedO4_5}


def of_version(kinds: Mapping[str, type], version: object) -> Any:
    """The class for a version. Raises UnsupportedError for one that is not known."""
    if str(version) not in kinds:
        raise UnsupportedError(
            f"version={version!r} in config.json: of this family, only versions {', '.join(kinds)} can be pruned "
            f"inside vLLM. Serve the model without pruning."
        )
    return kinds[str(version)]


@MULTIMODAL_REGISTRY.register_processor(
    MiniCPMVProcessor, info=minicpmv.MiniCPMVProcessingInfo, dummy_inputs=minicpmv.MiniCPMVDummyInputsBuilder
)
class PrunedMiniCPMV(PrunedResampled, minicpmv.MiniCPMV, SupportsMRoPE):
    """vLLM's MiniCPM-V, pruned, in the class of its version."""

    packed_modules_mapping = minicpmv.MiniCPMV2_6.packed_modules_mapping  # that of all versions, for quantised weights

    def __new__(cls, *, vllm_config: Any, prefix: str = "") -> Any:
        version = ".".join(map(str, minicpmv.get_version_by_config(vllm_config.model_config.hf_config)))
        return of_version(V_VERSIONS, version)(vllm_config=vllm_config, prefix=prefix)


@MULTIMODAL_REGISTRY.register_processor(
    MiniCPMOProcessor, info=minicpmo.MiniCPMOProcessingInfo, dummy_inputs=minicpmo.MiniCPMODummyInputsBuilder
)
class PrunedMiniCPMO(PrunedResampled, minicpmo.MiniCPMO, SupportsMRoPE):
    """The same for MiniCPM-o."""

    def __new__(cls, *, vllm_config: Any, prefix: str = "") -> Any:
        version = getattr(vllm_config.model_config.hf_config, "version", "2.6")  # vLLM's default
        return of_version(O_VERSIONS, version)(vllm_config=vllm_config, prefix=prefix)
