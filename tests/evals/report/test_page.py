"""The content of the report's page, and that they need no other files."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.browser import browser
from helpers.commands import command
from helpers.files.evals import saved, tiny_processor, write_refcoco
from helpers.files.rows import row
from helpers.files.tasks import SETS, VIDEO_SETS
from helpers.tiny import tiny_llava

from tokenprune.evals.models.image_view import view_through
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.report import page as pages
from tokenprune.evals.report.regressions import AskedQuestion, Regression, questions_of, worst_regressions
from tokenprune.evals.report.report import write
from tokenprune.evals.run.downsample import at_size
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.storage.answers import Answer, AnswerKey, KeptTokens
from tokenprune.evals.storage.results_io import to_line as row_line
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question
from tokenprune.tokens import Layout

RIGHT, WRONG = [1.0] * 12, [1.0, 0.0] * 6


def answer(id: str, strategy: str, text: str, score: float | None, **changes: object) -> Answer:
    ratio = 1.0 if strategy == "unpruned" else 0.25
    known = {"task": "rec", "id": id, "split": "val", "position_ids": "original", "n_visual": 36, "n_kept": 9}
    return Answer(**known | {"strategy": strategy, "keep_ratio": ratio, "text": text, "score": score} | changes)  # pyright: ignore[reportArgumentType]


def by_question(*answers: Answer) -> dict[AnswerKey, Answer]:
    return {answer.answer_key: answer for answer in answers}


def lost(answers: dict[AnswerKey, Answer], n: int = 9) -> list[tuple[str, str]]:
    return [(one.pruned.strategy, one.pruned.id) for one in worst_regressions(answers, n)]


def test_losses_are_what_the_unpruned_model_knew() -> None:
    answers = by_question(
        *(answer(id, "unpruned", "", 1.0) for id in "abc"),
        answer("d", "unpruned", "", 0.0),
        answer("a", "Grid", "", 1.0),
        answer("b", "Grid", "", None),  # unparsable
        answer("c", "Grid", "", None, error="broken"),
        answer("d", "Grid", "", 0.0),
    )
    assert lost(answers) == [("Grid", "b")]


def test_the_worst_come_first_and_then_those_of_most_setups() -> None:
    answers = by_question(
        *(answer(id, "unpruned", "", 1.0) for id in "abcd"),
        *(answer(id, "Grid", "", score) for id, score in (("a", 0.6), ("b", 0.0), ("c", 0.0), ("d", 0.3))),
        answer("c", "Random", "", 0.0),
    )
    assert lost(answers, 3) == [("Grid", "c"), ("Grid", "b"), ("Grid", "d"), ("Random", "c")]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A finished run of the tiny model, with two answers replaced by a right and a wrong one.

    It was started in the folder of the model and the data; tests run in another folder.
    """
    write_refcoco(tmp_path / "scenes")
    saved(tiny_llava(), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    where = ["--model", "model", "--data", "scenes"]
    compared = ["--strategy", "grid", "--keep-ratio", 0.25, "--position-ids", "original", "--baselines", "unpruned"]
    assert command("eval", *where, *compared, "--output", tmp_path / "run") == 0
    run = RunFolder(tmp_path / "run")
    changed = {"unpruned": ("[0.50, 0.25, 0.75, 0.75]", 1.0), "Grid": ("<b>[0.1, 0.1, 0.2, 0.2]</b>", 0.0)}
    lines = []
    for line in (run.path / "answers.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["id"] == "rec-20":
            record["text"], record["score"] = changed[record["strategy"]]
        lines.append(json.dumps(record) + "\n")
    (run.path / "answers.jsonl").write_text("".join(lines))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return run


def test_report_of_a_run(run: RunFolder, tmp_path: Path) -> None:
    assert command("report", run.path, "--baseline", "Grid", "--output", tmp_path / "out") == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"report.html", "report.md", "accuracy.png", "accuracy.svg"}
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.count('<article class="card"') == 1
    assert "the orange box" in html
    assert "&lt;b&gt;[0.1, 0.1, 0.2, 0.2]&lt;/b&gt;" in html
    assert html.count('<rect class="') == 3  # true, unpruned, pruned
    # The image is 60 x 40, and the true box goes from (30, 10) to (45, 30).
    assert '<rect class="true" x="30.0" y="10.0" width="15.0" height="20.0"/>' in html
    assert html.count("<image id=") == 1
    assert html.count("data:image/png") == 1
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)  # one file, nothing fetched
    assert "9 of 36 visual tokens" in html
    path = re.search(r'<path d="([^"]+)"', html)
    assert path is not None
    assert path[1].count("M") >= 6


def test_report_where_the_data_is_gone(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "scenes").rename(tmp_path / "elsewhere")
    assert command("report", run.path, "--baseline", "Grid", "--output", tmp_path / "out") == 0
    html = (tmp_path / "out" / "report.html").read_text()
    assert "questions and images are not shown: " in html
    assert "scenes: no such folder" in html
    assert html.count('<article class="card"') == 1


def test_report_of_an_unfinished_run(run: RunFolder) -> None:
    (run.path / "rows.jsonl").unlink()
    assert f"{run.path}: unfinished, with 6 of 6 answers. To resume it, repeat" in command("report", run.path)
    assert command("report", run.path.parent).endswith(f"starts one. Runs in it: {run.path.parent}/*")
    (run.path / "run.json").unlink()
    assert command("report", run.path).endswith("has no run.json, so it is not a run; `tokenprune eval` starts one")


def test_report_of_rows_alone(tmp_path: Path) -> None:
    rows = [row("unpruned", "original", 1.0, {"": RIGHT}), row("Random", "original", 0.25, {"": WRONG})]
    (tmp_path / "rows.jsonl").write_text("".join(f"{row_line(row)}\n" for row in rows))
    assert command("report", tmp_path / "rows.jsonl", "--output", tmp_path / "out") == 0
    assert "<p>None.</p>" in (tmp_path / "out" / "report.html").read_text()


def card_of(question: Question, *kept: KeptTokens) -> pages.Card:
    regression = Regression(answer(question.id, "unpruned", "", 1.0), answer(question.id, "Grid", "", 0.0, kept=kept))
    return pages._card(regression, AskedQuestion(question), {})


@pytest.fixture
def pointing(tmp_path: Path) -> Question:
    """A question about an image of 60 x 40."""
    write_refcoco(tmp_path)
    return TASKS["rec"].load(tmp_path, "testA", STYLES["llava"])[0]


def test_an_overview_and_its_canvas(pointing: Question) -> None:
    """There are four overview tokens, and a canvas of 2 x 4 with a column of newline tokens, which are not drawn. A
    newline token at the end is ignored."""
    newlines = torch.tensor([*[0] * 4, *[0, 0, 0, 0, 1] * 2, 1]).bool()
    layout = Layout(((1, 2, 2), (1, 2, 5), (1, 1, 1)), newlines=newlines)
    kept = KeptTokens.of([1, 2, 3, *range(4, 8), 13], layout)
    overview, canvas = card_of(pointing, kept).panels
    assert (overview.name, overview.dropped) == ("overview", "M0.0 0.0h30.0v20.0h-30.0z")
    assert (canvas.name, canvas.dropped) == ("canvas", "M0.0 20.0h60.0v20.0h-60.0z")
    assert overview.image == canvas.image
    assert (set(overview.boxes), canvas.boxes) == ({"true"}, {})


def test_tiles_are_drawn_by_themselves(pointing: Question) -> None:
    """The answers do not say which part of the image a tile shows."""
    card = card_of(pointing, KeptTokens.of([0, 5, 6, 7], Layout(((1, 2, 2),) * 3)))
    assert [panel.name for panel in card.panels] == ["grid 1", "grid 2", "grid 3"]
    assert [panel.image for panel in card.panels] == [None] * 3
    assert card.panels[1].dropped == "M0.0 0.0h10.0v10.0h-10.0z"
    assert card.panels[2].dropped == "M0.0 0.0h20.0v10.0h-20.0zM0.0 10.0h20.0v10.0h-20.0z"
    card = card_of(pointing, KeptTokens.of([], Layout(((1, 2, 2),) * 20)))
    assert (len(card.panels), card.note) == (8, "12 more not drawn")


def test_several_images(tmp_path: Path) -> None:
    (tmp_path / "seedbench").mkdir()
    SETS["seedbench", "hub"](tmp_path / "seedbench")
    video = TASKS["seedbench"].load(tmp_path / "seedbench")[1]
    each = [KeptTokens.of([n], Layout.raster((1, 2, 2))) for n in range(3)]
    card = card_of(video, *each)
    assert [panel.name for panel in card.panels] == ["image 1", "image 2", "image 3"]
    assert len({panel.dropped for panel in card.panels}) == 3
    assert [panel.dropped for panel in card_of(video).panels] == [""] * 3  # nothing was reported
    found = [Regression(answer(video.id, "unpruned", "", 1.0, task="seedbench"),
                  answer(video.id, "Grid", "", 0.0, task="seedbench", kept=tuple(each)))]  # fmt: skip
    html = pages.page("title", [], [], None, found, {("", "seedbench", video.id): AskedQuestion(video)})
    assert html.count("<image id=") == html.count("<use href=") == html.count("<figcaption") == 3
    tiled = replace(found[0], pruned=replace(found[0].pruned, kept=(KeptTokens.of([0], Layout(((1, 2, 2),) * 3)),)))
    alone = AskedQuestion(replace(video, images=video.images[:1]))
    html = pages.page("title", [], [], None, [tiled], {("", "seedbench", video.id): alone})
    assert html.count('<rect class="ground"') == 3


def test_no_column_is_cut_off(tmp_path: Path) -> None:
    """On a screen of 1,280 pixels, with as many tasks side by side as a table has. The verdict comes first."""
    scores = {"": [*RIGHT, *WRONG, *WRONG]}
    whole, *pruned = (
        row(name, "original", ratio, scores, task=task, settings={"a": 1})
        for name, ratio in (("unpruned", 1.0), ("FoPru score=cls layer=-2 cells=auto", 0.25), ("Random", 0.25))
        for task in ("rec", "vqa", "gqa", "pope")
    )
    write([], [whole, *pruned], tmp_path, baseline=None, n_losses=0)
    with browser(tmp_path / "profile") as context:
        page = context.new_page()
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto((tmp_path / "report.html").as_uri())
        wide = page.locator(".wide").evaluate_all("all => all.map(one => [one.scrollWidth, one.clientWidth])")
        assert page.locator("h1 + p").inner_text().startswith("Fewest visual tokens that lose")
    assert len(wide) == 6  # the plot and five tables
    assert all(content <= shown for content, shown in wide), wide


def test_each_run_has_its_own_questions(pointing: Question) -> None:
    """Two sets may use the same numbers."""
    other = replace(pointing, text="of another set")
    regressions = [
        Regression(answer(pointing.id, "unpruned", "", 1.0), answer(pointing.id, "Grid", "", 0.0), run)
        for run in ("a", "b")
    ]
    named = {(run, pointing.task, pointing.id): AskedQuestion(one) for run, one in (("a", pointing), ("b", other))}
    html = pages.page("title", [], [], None, regressions, named)
    assert html.count("of another set") == html.count(pointing.text.replace('"', "&#34;")) == 1


def test_only_what_was_lost_needs_the_data(run: RunFolder, tmp_path: Path) -> None:
    """If there is no loss to show, or none in the split, missing data is not an error."""
    (tmp_path / "scenes").rename(tmp_path / "elsewhere")
    for options, n in ((["--losses", 0], 0), (["--split", "val"], 1)):
        assert command("report", run.path, *options, "--output", tmp_path / "out") == 0
        html = (tmp_path / "out" / "report.html").read_text()
        assert ("not shown" in html) == bool(n)
        assert html.count('<article class="card"') == n


def test_a_page_shows_the_frames_and_the_part_of_an_image_that_the_run_read(tmp_path: Path) -> None:
    """It uses neither the command's default number of frames nor the processor's default size."""
    model = saved(tiny_llava(), tmp_path / "model")
    tiny_processor(do_center_crop=True).save_pretrained(tmp_path / "model")
    VIDEO_SETS["activitynetqa", "published"](tmp_path / "clips")
    write_refcoco(tmp_path / "set")
    named: dict[str, Any] = {"strategies": [], "keep_ratios": [0.5], "baselines": ["unpruned"]}
    evaluate(model, output=tmp_path / "a", data=tmp_path / "clips", tasks=["activitynetqa"], frames=3, **named)
    evaluate(model, output=tmp_path / "b", data=tmp_path / "set", tasks=["rec"], image_size=(24, 48), **named)
    found = {}
    for name in "ab":
        folder = RunFolder(tmp_path / name)
        answers = folder.answers().values()
        asked = questions_of(folder, [Regression(one, one, str(folder.path)) for one in answers])
        found[name] = [one.question for one in asked.values()]
    assert {one.n_frames for one in found["a"]} == {3}  # pyright: ignore[reportAttributeAccessIssue]
    (style,) = {one.style for one in found["b"]}  # pyright: ignore[reportAttributeAccessIssue]
    assert (
        style.view((60, 40)).window
        == view_through(at_size(tiny_processor(do_center_crop=True), 24, 48))((60, 40)).window
    )
