"""Characters that matplotlib's own font lacks."""

import pytest
from matplotlib.font_manager import findfont, get_font

from tokenprune.evals.explain import fonts
from tokenprune.evals.explain.sheet import Sheet


def draw(text: str) -> None:
    sheet = Sheet(2.0, 1.0)
    sheet.write(1.0, 0.5, [text])
    sheet.figure.canvas.draw()


def test_what_no_font_has_is_returned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "OTHERS", ())
    with fonts.any_script() as lacking:
        draw("cup 杯子, 杯")
        draw("杯")
    assert lacking == {"杯", "子"}
    with fonts.any_script() as lacking:
        draw("Où est-elle ?")
    assert lacking == set()


def test_an_installed_font_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """STIX comes with matplotlib, so it is always installed."""
    own, other = (get_font(findfont(name)).get_charmap() for name in ("DejaVu Sans", "STIXGeneral"))
    text = chr(min(set(other) - set(own)))
    for others, expected in (((), {text}), (("No such font", "STIXGeneral"), set())):
        monkeypatch.setattr(fonts, "OTHERS", others)
        with fonts.any_script() as lacking:
            draw(text)
        assert lacking == expected
