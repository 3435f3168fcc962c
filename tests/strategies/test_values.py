"""Values of settings that no strategy accepts, and the remedies that the errors name."""

from typing import Any

import pytest

from tokenprune import (
    DART,
    SCOPE,
    VCAST,
    AdaToken,
    AttentionMass,
    BackgroundPruning,
    EfficientVLA,
    FastV,
    FastVID,
    FoPru,
    Grid,
    HoloV,
    IVCPrune,
    LateStep,
    Mosaic,
    Nuwa,
    PixelPrune,
    PruMerge,
    PruneSID,
    PyramidDrop,
    Random,
    SettingError,
    SparseVLM,
    ToMe,
    VFlowOpt,
    VisionZip,
    VisPruner,
)

NAN, INF = float("nan"), float("inf")
CELLS = r'cells=.*is not the side of a cell.*write cells="auto"'
AVERAGE = "keep is a count, but the budget is an average over layers"
STEPS = r"LateStep: steps=.* does not name ascending denoising steps from 1 on"
#: A strategy, the values of one setting, the other settings, and what the error says.
WRONG: list[tuple[Any, str, list[Any], dict[str, Any], str]] = [
    (
        Grid,
        "keep_ratio",
        [0, 0.0, -0.1, 1.5, NAN, INF, "a", True, [0.5]],
        {},
        r"not a fraction in \(0, 1\].*keep_ratio=0.25",
    ),
    (Grid, "keep", [0, -3, 1.5, "a", True], {}, r"keep=.*is not a count.*keep=64"),
    (Grid, "keep", [4], {"keep_ratio": 0.5}, "are both set; write only one"),
    *((cls, "keep", [64], {}, AVERAGE) for cls in (VFlowOpt, PyramidDrop, SparseVLM, Nuwa, AdaToken)),
    (FoPru, "mode", ["rows"], {}, r"unknown mode 'rows'. Did you mean 'row'\? Known: rank, row"),
    (FoPru, "score", ["clss"], {}, r"unknown score 'clss'. Did you mean 'cls'"),
    (FoPru, "heads", ["min"], {}, "unknown heads 'min'.*Known: max, mean"),
    (FoPru, "layer", ["last", True], {}, "layer=.* is not an encoder layer"),
    (FoPru, "mass", [True, 0.0, 1.5], {}, r"mass=.* is not a share of the scores; write a number in \(0, 1\]"),
    (FoPru, "least", [0.1], {}, r"FoPru: least=0\.1 has no effect without mass.* Write mass=0\.9 too, .* or leave out"),
    (FoPru, "least", [-0.1], {"mass": 0.5}, r"least=-0\.1 is not a fraction of the visual tokens"),
    (FoPru, "least", [0.3], {"mass": 0.5, "keep_ratio": 0.2}, r"least=0\.3 is more than keep_ratio=0\.2, the most"),
    (FoPru, "cells", [0, 1, -2, 2.5, True, "all"], {}, CELLS),
    (FoPru, "cells", [2], {"mode": "row"}, 'mode="row" keeps whole rows'),
    (PruMerge, "cells", [2], {"plus": True}, "plus=True spreads tokens evenly already"),
    (PruMerge, "neighbours", [0, 1.5], {}, r"neighbours=.* is not a count of tokens"),
    (Random, "seed", [-1, 0.5], {}, "seed=.* is not a seed"),
    (DART, "pivots", [0], {}, "DART: pivots=0 is not a positive integer"),
    (DART, "text_pivots", [0], {}, "DART: text_pivots=0 is not a positive integer"),
    (IVCPrune, "positions", [0.6], {}, "more than 0.5 exceeds the budget"),
    (IVCPrune, "layer", [0], {}, "IVCPrune: layer=0 is not a positive integer"),
    (FastV, "budget_per", ["tile"], {}, "the tiles of an image compete inside the language model"),
    (FastV, "queries", ["first"], {}, "unknown queries 'first'.*Known: all, last"),
    (FastV, "layer", [0], {}, "layer=0 is not a positive integer; write layer=1 or more"),
    (FastV, "keep", [64], {"average": True}, "average=True needs a ratio, not a count"),
    (EfficientVLA, "key", [0], {}, "key=0 is not a positive integer"),
    (EfficientVLA, "alpha", [1.5], {}, "alpha=1.5 is not a share"),
    (EfficientVLA, "reuse", [0, -1, True], {}, "reuse"),
    (PyramidDrop, "first", [0], {}, "first=0 is not a positive integer"),
    (SparseVLM, "recycle", [-0.1], {}, "recycle=-0.1 is not a share"),
    (SparseVLM, "clusters", ["many"], {}, "clusters='many' is not a share"),
    (AttentionMass, "mass", [0], {}, r"mass=0 is not a share of the scores; write a number in \(0, 1\]"),
    (AttentionMass, "every", [0], {}, "every=0 is not a positive integer"),
    (LateStep, "steps", [0, (), (0, 3), (8, 4), (4, 4), True], {}, STEPS),
    (LateStep, "steps", [(1, 2)], {"keep": 4}, "several steps need a ratio, not a count"),
    (LateStep, "layer", [True], {}, "LateStep: layer=True"),
    (ToMe, "schedule", ["growing"], {}, "Write schedule='constant'"),
    (BackgroundPruning, "threshold", [1.5, NAN], {}, "BackgroundPruning: "),
    (BackgroundPruning, "quantile", [1.5], {}, "BackgroundPruning: "),
    (HoloV, "crops", [0], {}, "HoloV: crops=0 is not a positive integer"),
    (Mosaic, "reach", [0.0], {}, "reach=0.0 is not a distance in rectangles"),
    (Nuwa, "reach", [0.0], {}, "reach=0.0 is not a distance"),
    (PruneSID, "similar", [0.0], {}, "PruneSID: similar=0.0 is not a multiple of the mean cosine"),
    (SCOPE, "alpha", [-1.0, 10.5, NAN, INF], {}, "SCOPE: alpha=.* is not a power"),
    (VisionZip, "contextual", [-0.1, 1.5], {}, "contextual=.* is not a share of the budget"),
    (VisPruner, "important", [-0.1, 1.5], {}, "important=.* is not a share of the budget"),
    (PixelPrune, "threshold", [-0.1, 1, True], {}, r"threshold=.* is not a colour difference in \[0, 1\)"),
    (PixelPrune, "metric", ["psnr"], {}, "metric"),
    (PixelPrune, "budget_per", ["tile"], {}, "the pixels decide how much is left"),
    (FastVID, "segments", [0], {}, "FastVID: .*write"),
    (FastVID, "step", [1.5, True], {}, "FastVID: .*write"),
    (FastVID, "contextual", [1.1], {}, "FastVID: .*write"),
    (FastVID, "beta", [-0.1], {}, "FastVID: .*write"),
    (VCAST, "temperature", [0.0], {}, "VCAST: temperature=0.*write a positive number"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("cls", "name", "values", "others", "message"), WRONG)
def test_values_that_cannot_be(cls: Any, name: str, values: list[Any], others: dict[str, Any], message: str) -> None:
    for value in values:
        with pytest.raises(SettingError, match=message):
            cls(**{name: value}, **others)
