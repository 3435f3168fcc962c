"""The table of serving times: ratios are taken within rounds."""

from __future__ import annotations

from tokenprune.evals.dev.tables.speed.serving import table


def test_ratios_are_to_the_unpruned_of_the_same_round() -> None:
    rows = []
    for number, slow in enumerate((1.0, 10.0, 1.0)):
        for keep_ratio, speed in ((1.0, 1.0), (0.25, 0.5)):
            case = {"round": number, "strategy": "fopru", "keep_ratio": keep_ratio}
            rows += [
                {**case, "ttft": slow * speed, "selection": 0.004},
                {**case, "clients": 1, "rate": 2 / slow, "blocks": 9.0},
                {**case, "clients": 16, "rate": 1 / (slow * speed), "blocks": 80 * keep_ratio},
            ]
    unpruned, pruned = table({"about": {"bounds": {"0.25": 0.4, "1.0": 1.0}}, "rows": rows}).lines
    assert unpruned == ["100 %", "unpruned (engine of fopru)", "1.00 s", "1", "1.00", "4.0 ms", "2.00", "1.00", "80"]
    assert pruned[:6] == ["25 %", "fopru", "0.50 s", "0.50 [0.50, 0.50]", "0.40", "4.0 ms"]
    assert pruned[6:] == ["2.00, 1 x", "2.00, 2.00 [2.00, 2.00] x", "20"]
