"""The page with a slider, in a real headless Chromium."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.browser import browser
from helpers.families.llava import Llava
from helpers.files.evals import sample_image, tiny_processor
from helpers.tiny import tiny_llava
from matplotlib.figure import Figure

from tokenprune import DataError, SettingError
from tokenprune.evals.explain import page as kept_tokens_page
from tokenprune.evals.explain import sheet
from tokenprune.evals.explain.explain import explain
from tokenprune.evals.explain.outcomes import Explanation

STRATEGIES = ["random", "fopru", "visionzip"]
BOX = 30.0, 10.0, 45.0, 30.0
PHONE = {"width": 360, "height": 740}

# Returns, for every text, the WCAG contrast between its colour and the background.
CONTRASTS = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = channels(color).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const [, , , alpha = 1] = channels(getComputedStyle(e).backgroundColor);
      if (alpha === 1) return getComputedStyle(e).backgroundColor;
    }
    return "rgb(255, 255, 255)";
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || element.closest("script, style, noscript, svg") || !element.getClientRects().length) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(behind(element))];
    found.push([text, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of the tiny model with a box as one answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokenprune.evals.explain.explain.MAX_NEW_TOKENS", 3)
        return written(tmp_path_factory.mktemp("page") / "kept tokens.html")


def written(path: Path) -> Path:
    model = tiny_llava()
    compared = kept_tokens_page.slider(model, STRATEGIES, [0.3])
    explained = explain(
        model, tiny_processor(), sample_image(), "Where is <b>it</b>?", compared, true_box=BOX, rounds=1
    )
    (answered,) = (one for one in explained.outcomes if one.setup.key == ("FoPru", "original", 0.5))
    object.__setattr__(answered, "box", (10.0, 10.0, 30.0, 30.0))
    kept_tokens_page.write(explained, path)
    return path


def test_stops_that_a_strategy_cannot_reach_are_left_out() -> None:
    """An average over four layers exceeds the quarter that the first takes, and `least` must not exceed the budget."""
    model = Llava("llava-clip").build(n_layers=4)
    strategies = ["fastv:layer=1,average=True", "fopru:mass=0.5,least=0.2", "pixelprune+divprune"]
    found = kept_tokens_page.slider(model, strategies, [0.3])
    reached: dict[str, list[float]] = {}
    for setup in found:
        if setup.position_ids == "original":
            reached.setdefault(setup.label, []).append(setup.keep_ratio)
    assert list(reached.values()) == [
        [0.75, 0.5, 0.35, 0.3],
        [0.75, 0.5, 0.35, 0.3, 0.25],
        [0.75, 0.5, 0.35, 0.3, 0.25, 0.15, 0.1, 0.05],
    ]
    with pytest.raises(SettingError, match="average over 4 layers"):
        explain(
            model,
            tiny_processor(),
            sample_image(),
            "01",
            kept_tokens_page.slider(model, strategies[:1], [0.2]),
            rounds=0,
        )


@pytest.fixture
def page(chromium: Any, html: Path) -> Iterator[Any]:
    """The page, opened as a file. Fails if it writes to the console or requests any other file."""
    opened, said, asked = chromium.new_page(), [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(html.as_uri())
    yield opened
    opened.close()
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {html.as_uri()}


def spaced(text: str | None) -> str:
    return (text or "").replace("\N{NO-BREAK SPACE}", " ")


def state(page: Any) -> dict[str, Any]:
    """Return what the page draws and says."""
    found = page.evaluate(
        """() => ({
          dropped: document.querySelector("#image .dropped").getAttribute("d"),
          heat: [...document.querySelectorAll(".heat")].map((image) => image.getAttribute("href")),
          boxes: [...document.querySelectorAll("#image rect:not(.halo)")].map((rect) => rect.getAttribute("class")),
          nothing: document.querySelector(".nothing").textContent,
          ...Object.fromEntries(["percent", "tokens", "of", "answer", "verdict", "costs"].map(
            (id) => [id, document.getElementById(id).textContent])),
        })"""
    )
    return {name: spaced(value) if isinstance(value, str) else value for name, value in found.items()}


def test_the_slider_changes_image_and_answer(page: Any) -> None:
    seen = [state(page)]
    assert (seen[0]["percent"], seen[0]["tokens"]) == ("25 %", "9 of 36 visual tokens")
    page.focus("#ratio")
    for key in ("ArrowRight", "ArrowRight", "End", "Home"):
        page.keyboard.press(key)
        seen.append(state(page))
    assert [one["percent"] for one in seen] == ["25 %", "30 %", "35 %", "100 %", "5 %"]
    assert [one["dropped"].count("M") for one in seen] == [27, 25, 23, 0, 34]
    assert spaced(page.get_attribute("#ratio", "aria-valuetext")) == "5 %, 2 of 36 visual tokens"
    for what in ("dropped", "tokens", "of", "costs"):
        assert len({one[what] for one in seen}) == len(seen), what
    assert len({one["answer"] for one in seen}) > 2


def test_toggles_by_keyboard(page: Any) -> None:
    fopru = state(page)
    assert fopru["of"] == "FoPru, original position IDs, 25 %"
    assert (len(fopru["heat"]), fopru["nothing"]) == (1, "")
    page.focus("input[value='FoPru']")
    page.keyboard.press("ArrowLeft")
    random = state(page)
    assert (random["heat"], random["nothing"]) == ([], "Random ranks no tokens")
    assert fopru["dropped"] != random["dropped"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    compact = state(page)
    assert compact["of"] == "FoPru, compact position IDs, 25 %"
    assert compact["dropped"] == fopru["dropped"]
    assert compact["answer"] != fopru["answer"]


def test_tab_reaches_everything_and_shows_where_it_is(page: Any) -> None:
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "() => [document.activeElement.name || document.activeElement.id || document.activeElement.tagName, "
                "getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    assert reached == [["strategy", "solid"], ["ids", "solid"], ["ratio", "solid"], ["SUMMARY", "solid"]]
    assert page.get_attribute("[aria-live]", "aria-live") == "polite"


def test_true_and_answered_boxes_are_drawn(page: Any) -> None:
    assert state(page)["boxes"] == ["true"]
    page.focus("#ratio")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert state(page)["percent"] == "50 %"
    assert state(page)["boxes"] == ["true", "pruned"]
    box, true = (page.locator(f"#image rect.{name}:not(.halo)") for name in ("pruned", "true"))
    assert float(box.get_attribute("x")) == pytest.approx(1000 * 10 / 60, abs=0.1)
    assert float(true.get_attribute("width")) == pytest.approx(1000 * 15 / 60, abs=0.1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(page: Any, scheme: str) -> None:
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme=scheme)
    page.click("summary")  # the table, which is wide
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    contrasts = {spaced(text): contrast for text, contrast in page.evaluate(CONTRASTS)}
    assert {"Where is <b>it</b>?", "25 %", "Strategy", "dropped", "KV cache", "least"} <= contrasts.keys()
    assert min(contrasts.values()) >= 4.5, contrasts
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 22)"
    assert dark == (scheme == "dark")
    for label in page.query_selector_all(".choice"):  # large enough for a finger
        assert label.bounding_box()["height"] >= 32


@pytest.mark.parametrize(("motion", "seconds"), [("reduce", "0s"), ("no-preference", "0.2s")])
def test_reduced_motion(page: Any, motion: str, seconds: str) -> None:
    page.emulate_media(reduced_motion=motion)
    durations = page.evaluate("getComputedStyle(document.querySelector('.bar div')).transitionDuration")
    assert durations == seconds


def test_without_javascript(chromium: Any, html: Path) -> None:
    text = html.read_text(encoding="utf-8")
    assert "<noscript>" in text
    assert text.count("<tr>") == 1 + 1 + 2 * 8 * len(STRATEGIES)  # heading, unpruned, all others
    assert "Where is &lt;b&gt;it&lt;/b&gt;?" in text
    assert len(text) < 120_000


def test_a_full_disk_is_named_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tokens_page, "page", lambda explanation: "<html>")
    monkeypatch.setattr(sheet, "sheet", lambda explanation: SimpleNamespace(figure=Figure()))
    shown = object.__new__(Explanation)
    for write, name in ((kept_tokens_page.write, "kept.html"), (sheet.draw, "kept.png")):
        (tmp_path / name).symlink_to("/dev/full")
        with pytest.raises(DataError, match=f"{name}: cannot be written: No space left on device"):
            write(shown, tmp_path / name)
