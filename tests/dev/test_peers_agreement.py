"""The comparison of what our VisionZip and FlowCut keep with what the published packages keep."""

from helpers.by_path import module_at

from tokenprune.evals.models.bundled import BUNDLED
from tokenprune.evals.reading.images import open_image


def test_it_finds_the_bundled_scenes() -> None:
    script = module_at(BUNDLED.parent / "dev" / "peers" / "agreement.py")
    paths = script.example_images(16)
    assert len(paths) == 16
    assert open_image(paths[-1]).width
