"""What the processor attaches to an image, without an engine."""

# pyright: reportMissingImports=false

import random
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.served.engine import needs_vllm

from tokenprune import Downsample, FoPru, PixelPrune, Strategy
from tokenprune.serving.vllm.relied_on import PROCESSOR, listed
from tokenprune.serving.vllm.settings import Budget, Settings

pytestmark = needs_vllm


@pytest.mark.usefixtures("unchecked")
def test_images_have_different_keys_even_if_the_caller_seeds() -> None:
    """If keys were equal, one image would be recorded under the other's name."""
    from vllm.multimodal.processing import PromptUpdateDetails
    from vllm.multimodal.processing.processor import ResolvedPromptUpdate, UpdateMode

    from tokenprune.serving.vllm.processor.item import FIELD, PrunedItem
    from tokenprune.serving.vllm.processor.processor import PruningProcessor

    processor = PruningProcessor()
    processor.settings = Settings(FoPru(keep_ratio=0.25))
    update = ResolvedPromptUpdate("image", 0, UpdateMode.REPLACE, [7], PromptUpdateDetails([7] * 8))
    items: list[dict[str, Any]] = [{}, {}]
    for item in items:
        random.seed(0)
        processor._shortened(update, None, item, "image")
    first, second = (PrunedItem.read(item[FIELD].data) for item in items)
    assert first.key != second.key
    assert first.parts == second.parts == (8,)


def test_an_item_says_what_is_asked() -> None:
    from vllm.multimodal.inputs import (  # pyright: ignore[reportMissingImports]
        MultiModalFeatureSpec,
        MultiModalKwargsItem,
        PlaceholderRange,
    )

    from tokenprune.errors import PruningError
    from tokenprune.serving.vllm.processor.item import FIELD, PrunedItem

    def feature(data: Any, modality: str = "image") -> Any:
        return MultiModalFeatureSpec(data, modality, "name", PlaceholderRange(0, 9))

    several = (
        PrunedItem((36,), None, 2**53 - 1),
        PrunedItem((576, 300, 2), Budget(0.1), 3),
        PrunedItem((9,), None, 3, ((3, 2**17), (7, 0))),
        PrunedItem((4, 4), Budget(keep=3), 3, (), (0, 3, 4, 5)),
        PrunedItem((4,), None, 3, (), ()),
        PrunedItem((24, 24), None, 3, ((2, 9),), None, (4, 6, 2, 3, 28, 42)),
    )
    for item in several:
        assert PrunedItem.read(item.element().data) == item
        assert PrunedItem.of(feature(MultiModalKwargsItem({FIELD: item.element()})), ["image"]) == item
    assert PrunedItem.of(feature(None, "video"), ["image"]) is None
    for modality in ("image", "video"):
        with pytest.raises(PruningError, match=f"vLLM lost the data that tokenprune attached to one {modality}"):
            PrunedItem.of(feature(None, modality), ["image", "video"])


def test_a_part_keeps_what_is_left_of_it_at_most() -> None:
    from tokenprune.serving.vllm.processor.item import PrunedItem

    settings = Settings(PixelPrune())
    item = PrunedItem((4, 4), None, 0, (), (0, 3, 4, 5, 7))
    assert item.left_by_part() == [(0, 3), (0, 1, 3)]
    assert item.n_kept(settings) == [2, 3]
    assert PrunedItem((4, 4), Budget(0.5), 0, (), (0, 3, 4, 5, 7)).n_kept(settings) == [2, 2]
    assert PrunedItem((4, 4), Budget(1.0), 0).n_kept(settings) == [4, 4]
    assert item.places(settings) == [(4, 2), (4, 3)]
    shrunk = PrunedItem((24, 24), None, 0, (), None, (4, 6, 2, 3, 28, 42))
    assert shrunk.encoded == (6, 6)
    assert shrunk.n_kept(Settings(Downsample(keep_ratio=0.5))) == [6, 6]


@pytest.mark.parametrize("is_bytes", [True, False], ids=["bytes", "normalised"])
def test_colors_of_patches(is_bytes: bool) -> None:
    from tokenprune.serving.vllm.processor.patches import colors_of

    colors = torch.tensor([[[0, 255], [51, 102], [204, 153]]]) / 255
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    given = (colors * 255).round().byte() if is_bytes else (colors - torch.tensor([mean]).T) / torch.tensor([std]).T
    assert torch.allclose(colors_of(given.flatten(1), (mean, std)), colors, atol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_colors_of_patches_that_were_prepared_on_a_gpu() -> None:
    """And kept there, as an instance that only encodes may do: --mm-processor-device, --mm-tensor-ipc torch_shm."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from tokenprune.serving.vllm.processor.patches import colors_of

    with FakeTensorMode(allow_non_fake_inputs=True):
        given = torch.empty(3, 6, device="cuda")
        assert colors_of(given, ((0.5, 0.4, 0.3), (0.2, 0.25, 0.5))).device.type == "cpu"


@pytest.mark.parametrize(
    ("strategy", "refused"), [(PixelPrune(), True), (Downsample(), True), (FoPru(), False)], ids=lambda one: repr(one)
)
def test_an_image_that_nobody_here_has_seen(strategy: Strategy, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its features come from an encoder cache, but the number of tokens in its prompt depends on its pixels."""
    from tokenprune.errors import SettingError
    from tokenprune.serving.vllm.processor import processor as module

    monkeypatch.setattr(module, "encoded_elsewhere", lambda items, modality: "not sent")
    processor = module.PruningProcessor()
    processor.settings = Settings(strategy)
    config = SimpleNamespace(architectures=["TokenPruneQwen3VL"])
    processor.info = SimpleNamespace(ctx=SimpleNamespace(model_config=SimpleNamespace(hf_config=config)))
    with pytest.raises(SettingError, match="encoded elsewhere") if refused else nullcontext():
        processor._check_encoded({"image": None})


def test_options_of_a_request_that_do_not_fit_the_tower() -> None:
    """They are refused before anything is processed or, if it shows only then, afterwards."""
    from vllm.multimodal.inputs import MultiModalBatchedField, MultiModalFieldElem

    from tokenprune.errors import SettingError
    from tokenprune.serving.vllm.models.llava import LlavaProcessor

    processor = LlavaProcessor.__new__(LlavaProcessor)
    processor.settings = Settings(FoPru(keep_ratio=0.25))
    for name in listed()["overrides"][PROCESSOR]:
        processor.reached.note(name)
    config = SimpleNamespace(vision_config=SimpleNamespace(image_size=28, patch_size=14))
    own = SimpleNamespace(image_processor=SimpleNamespace(patch_size=14))
    processor.info = SimpleNamespace(get_hf_processor=lambda: own, get_hf_config=lambda: config)
    options = {"patch_size": 7, "keep_ratio": 0.5}
    with pytest.raises(SettingError, match="patch_size=7 does not fit this model"):
        processor._cached_apply_hf_processor(SimpleNamespace(hf_processor_mm_kwargs=options), None)
    with pytest.raises(SettingError, match="video_keep_ratio does nothing: this model's videos are not pruned"):
        processor._cached_apply_hf_processor(SimpleNamespace(hf_processor_mm_kwargs={"video_keep_ratio": 0.5}), None)
    tile = MultiModalFieldElem(data=torch.zeros(3, 14, 14), field=MultiModalBatchedField())
    with pytest.MonkeyPatch.context() as patch:
        base = LlavaProcessor.__mro__[2]
        patch.setattr(base, "_get_mm_prompt_updates", lambda *_: {"image": [[]]}, raising=False)
        processor._get_mm_prompt_updates(None, {"keep_ratio": 0.5}, {"image": [{"pixel_values": tile}]})
        with pytest.raises(SettingError, match=r"with crop_size, a tile has 14 x 14 pixels, but .* 28 x 28"):
            processor._get_mm_prompt_updates(None, {"crop_size": 14}, {"image": [{"pixel_values": tile}]})
