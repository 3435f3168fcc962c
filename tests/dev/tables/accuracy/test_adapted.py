"""The table of what an adapter gains."""

from __future__ import annotations

from helpers.files.rows import row

from tokenprune.evals.dev.tables.accuracy import adapted
from tokenprune.evals.dev.tables.accuracy.adapted import ADAPTED


def test_an_adapter_is_compared_with_the_unpruned_model_without_it() -> None:
    right, half = {"val": [1.0, 1.0, 1.0, 1.0]}, {"val": [1.0, 1.0, 0.0, 0.0]}
    quarter = {"val": [1.0, 0.0, 0.0, 0.0]}
    rows = [
        row(strategy="unpruned", position_ids="original", keep_ratio=1.0, scores=right),
        row(strategy="FoPru", position_ids="original", keep_ratio=0.1, scores=quarter),
        row(model=ADAPTED, strategy="unpruned", position_ids="original", keep_ratio=1.0, scores=right),
        row(model=ADAPTED, strategy="FoPru", position_ids="original", keep_ratio=0.1, scores=half),
    ]
    whole, pruned = adapted.table(rows).lines
    assert whole[0] == "unpruned"
    assert whole[3][:5] == whole[4][:5] == "100.0"
    assert pruned[0] == "10%"
    assert pruned[3].startswith("25.0 [")
    assert pruned[4].startswith("50.0 [")
    assert pruned[5].startswith("+25.0 [")
    assert pruned[6] == "50%"
