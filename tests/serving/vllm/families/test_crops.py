"""DeepSeek-OCR, DeepSeek-OCR 2, Unlimited-OCR and Aria: which images are refused, in which order the tower gets their
tiles, and under which names vLLM caches them."""

# pyright: reportMissingImports=false

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.served.engine import needs_vllm

from tokenprune import FoPru
from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.serving.vllm.startup.refusals import check_strategy
from tokenprune.strategies.parsing import StrategySpec

pytestmark = needs_vllm


def item(columns: int, rows: int, whole: int = 1024, crop: int = 640) -> dict[str, Any]:
    """Return an image as vLLM's processor makes it, which cuts crops if there are several."""
    n_crops = columns * rows
    crops = torch.zeros(n_crops if n_crops > 1 else 0, 3, crop, crop)
    data = {"images_spatial_crop": torch.tensor([columns, rows]), "pixel_values": torch.zeros(3, whole, whole)}
    return {name: SimpleNamespace(data=one) for name, one in {**data, "images_crop": crops}.items()}


@pytest.mark.parametrize(
    ("version", "crop", "alone", "cropped", "small"),
    [(1, 640, 16 * 17 + 1, 2 * 10 * (3 * 10 + 1) + 16 * 17 + 1, 73), (2, 768, 257, 6 * 144 + 257, 65)],
)
def test_images_of_another_size(version: int, crop: int, alone: int, cropped: int, small: int) -> None:
    """vLLM counts the tokens of an image by the published sizes, whatever a request says."""
    from tokenprune.serving.vllm.models.deepseek_ocr import DeepseekOCRProcessor
    from tokenprune.serving.vllm.models.deepseek_ocr2 import DeepseekOCR2Processor

    kind = DeepseekOCRProcessor if version == 1 else DeepseekOCR2Processor
    processor = kind.__new__(kind)
    assert processor.parts("image", item(1, 1, crop=crop), alone) == (alone,)
    assert processor.parts("image", item(3, 2, crop=crop), cropped) == (cropped,)
    said = f"would have {small} visual tokens, but vLLM counts {alone}. Leave out options that cut images in another"
    with pytest.raises(SettingError, match=said):
        processor.parts("image", item(1, 1, whole=512, crop=crop), alone)


def test_tiles_of_several_images() -> None:
    """The tower gets each image and then its crops."""
    from tokenprune.serving.vllm.models.deepseek_ocr import PrunedDeepseekOCR, wholes_first

    images = [item(2, 1), item(1, 1), item(1, 2)]
    arguments = {
        "images_spatial_crop": torch.stack([one["images_spatial_crop"].data for one in images]),
        "pixel_values": torch.stack([one["pixel_values"].data for one in images]),
        "images_crop": torch.cat([one["images_crop"].data for one in images]),
    }
    model: Any = object.__new__(PrunedDeepseekOCR)
    layouts = model.layouts_of(arguments)
    assert [layout.n_tiles for layout in layouts] == [3, 1, 3]
    assert wholes_first(["a", "a1", "a2", "b", "c", "c1", "c2"], layouts) == ["a", "b", "c", "a1", "a2", "c1", "c2"]
    assert model.rows_of_images(arguments) == {"images_crop": [2, 0, 2]}


def test_an_image_has_another_name_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlimited-OCR cuts crops only from an image that is alone in its prompt. Under one name, vLLM would take the
    encoded image of another prompt, which has another number of tokens."""
    from tokenprune.serving.vllm.models.deepseek_ocr import UnlimitedOCRProcessor
    from tokenprune.serving.vllm.processor.processor import PruningProcessor

    monkeypatch.setattr(PruningProcessor, "_get_mm_hashes", lambda _, found: dict(found))
    processor: Any = object.__new__(UnlimitedOCRProcessor)
    assert processor._get_mm_hashes({"image": ["a"]}) == {"image": ["a"]}
    assert processor._get_mm_hashes({"image": ["a", "b"]}) == {"image": ["a-uncropped", "b-uncropped"]}
    assert processor._get_mm_hashes({}) == {}


def test_strategies_that_read_rows_and_columns() -> None:
    """The visual tokens of DeepSeek-OCR 2 are queries, which have none."""
    for name in ("mosaic", "grid", "fopru:mode=row"):
        strategy = StrategySpec.read(name).make({})
        check_strategy(strategy, 12, "TokenPruneDeepseekOCR")
        with pytest.raises(UnsupportedError, match="with TokenPruneDeepseekOCR2: it needs the rows and columns of vis"):
            check_strategy(strategy, 12, "TokenPruneDeepseekOCR2")
    check_strategy(FoPru(), 12, "TokenPruneDeepseekOCR2")


@pytest.mark.parametrize("options", [{"split_image": True}, {"images_kwargs": {"split_image": True}}])
def test_images_that_are_split(options: dict[str, Any]) -> None:
    """vLLM's Aria would silently encode the first crop only."""
    from tokenprune.serving.vllm.models.aria import AriaProcessor

    asked: Any = SimpleNamespace()
    with pytest.raises(SettingError, match=r"split_image cuts an image into crops.+Leave it out"):
        AriaProcessor._get_mm_fields_config(asked, {}, options)
