"""`tokenprune eval --engine URL`: rows equal those of the model in this process, and other servers are refused."""

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from helpers.files.evals import brief, saved, tiny_processor, write_refcoco, write_vqav2
from helpers.simulated.openai_server import VERSION, Answering, serving
from helpers.tiny import tiny_llava

from tokenprune.errors import DataError, SettingError, UnsupportedError
from tokenprune.evals import evaluate
from tokenprune.evals.run import evaluate as evaluating
from tokenprune.evals.run.engines.server import Server, same_model
from tokenprune.evals.run.runner import QuestionError
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.run_folder import RunFolder

FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_vqav2(tmp_path / "data", n=9)
    write_refcoco(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def model(tmp_path: Path) -> str:
    return saved(tiny_llava(), tmp_path / "model")


@pytest.fixture
def answering() -> Answering:
    return Answering(brief(tiny_llava()), tiny_processor(), FOPRU)


@pytest.fixture
def url(answering: Answering) -> Iterator[str]:
    with serving(answering) as url:
        yield url


def run(model: str, data: Path, output: Path, **options: Any) -> list[TaskResult]:
    chosen: dict[str, Any] = {
        "strategies": ["fopru"],
        "keep_ratios": [0.25, 0.5],
        "position_ids": ["original"],
        "baselines": ["unpruned"],
        **options,
    }
    return evaluate(model, data=data, output=output, **chosen)


def test_the_rows_are_the_same(model: str, data: Path, url: str, answering: Answering, tmp_path: Path) -> None:
    served = run(model, data, tmp_path / "served", engine=url)
    here = run(model, data, tmp_path / "here")
    assert len(served) == 6
    for row, other in zip(served, here, strict=True):
        assert (row.key, row.task, row.scores, row.questions) == (other.key, other.task, other.scores, other.questions)
        assert (row.n_visual, row.n_kept, row.settings) == (other.n_visual, other.n_kept, other.settings)
        assert row.versions == {**other.versions, "vllm": VERSION}
        assert (row.dtype, row.device, row.kv_cache_bytes) == ("float32", "cpu", 0)
    texts = [
        {key: one.text for key, one in RunFolder(tmp_path / name).answers().items()} for name in ("served", "here")
    ]
    assert texts[0] == texts[1]
    assert len(set(texts[0].values())) > 3
    n_asked = len(answering.requests)
    assert run(model, data, tmp_path / "served", engine=url) == served
    assert len(answering.requests) == n_asked


def test_only_another_keep_ratio_is_sent(
    model: str, data: Path, url: str, answering: Answering, tmp_path: Path
) -> None:
    """Otherwise vLLM would refuse the request unless it was started with --trust-request-mm-kwargs."""
    run(model, data, tmp_path / "run", engine=url, keep_ratios=[0.25], baselines=[], tasks=["vqa"])
    assert all("mm_processor_kwargs" not in request for request in answering.requests)
    run(model, data, tmp_path / "run", engine=url, keep_ratios=[0.25], tasks=["vqa"])
    assert [request["mm_processor_kwargs"] for request in answering.requests[9:]] == [{"keep_ratio": 1.0}] * 9


@pytest.mark.parametrize(
    ("settings", "ratios", "kind"),
    [
        (FOPRU, [0.25], "original"),
        ({**FOPRU, "layer": -2, "position_ids": "compact"}, [0.25], "compact"),
        ({"strategy": "fopru", "keep": 4}, [0.5, 0.25, 0.1], "original"),
    ],
)
def test_by_default_a_server_is_measured_with_what_it_prunes_with(
    model: str, data: Path, settings: dict[str, Any], ratios: list[float], kind: str, tmp_path: Path
) -> None:
    """So nobody must repeat the settings that it was started with."""
    with serving(Answering(brief(tiny_llava()), tiny_processor(), settings)) as url:
        rows = evaluate(model, data=data, output=tmp_path / "run", engine=url, tasks=["vqa"], limit=2)
    label = "FoPru -2" if "layer" in settings else "FoPru"
    assert [(row.strategy, row.keep_ratio, row.position_ids) for row in rows] == [
        ("unpruned", 1.0, "original"),
        *((label, ratio, kind) for ratio in ratios),
    ]


def test_a_plain_server_is_measured_unpruned(model: str, data: Path, tmp_path: Path) -> None:
    with serving(Answering(tiny_llava(), tiny_processor())) as url:
        (row,) = run(model, data, tmp_path / "run", engine=f"{url}/v1", strategies=[], tasks=["vqa"])
        assert (row.strategy, row.n, row.dtype) == ("unpruned", 9, "unknown")
        with pytest.raises(UnsupportedError, match="does not say what it prunes with"):
            run(model, data, tmp_path / "other", engine=url, tasks=["vqa"])


@pytest.mark.parametrize(
    "served", [{"id": "llava", "root": "other/llava"}, {"id": "llava", "root": "/models/llava-1.5-7b"}, {"id": "other"}]
)
def test_a_server_of_another_model(
    model: str, data: Path, answering: Answering, url: str, served: dict[str, str], tmp_path: Path
) -> None:
    answering.models = (served,)
    theirs = served.get("root", served["id"])
    with pytest.raises(SettingError, match=rf"Write --model {theirs}, or .* --served-model-name {model} "):
        run(model, data, tmp_path / "run", engine=url)
    assert not answering.requests


def test_a_server_names_its_model_as_it_likes(model: str, data: Path, url: str, answering: Answering) -> None:
    lora = {"id": "lora", "root": "/loras/1", "parent": "mine"}
    for root in (model, f"{model}/", "/on/another/machine/model"):
        answering.models = (lora, {"id": "mine", "root": root})
        assert Server(url, model).model == "mine"
    answering.models = ({"id": model, "root": "/snapshots/3f9a"},)
    assert Server(url, model).model == model


def test_two_folders_of_one_name_here_are_two_models(
    model: str, url: str, answering: Answering, tmp_path: Path
) -> None:
    other = tmp_path / "v2" / "model"
    other.mkdir(parents=True)
    answering.models = ({"id": "mine", "root": str(other)},)
    with pytest.raises(SettingError, match=rf"serves mine \({other}\), and not {model}\."):
        Server(url, model)


@pytest.mark.parametrize(("names", "same"), [(("a/llava", "b/llava"), False), (("a/llava", "/models/llava"), True)])
def test_names_on_hugging_face_have_owners(names: tuple[str, str], same: bool) -> None:
    assert same_model(*names) == same_model(*names[::-1]) == same


def test_questions_are_asked_at_once(model: str, data: Path, tmp_path: Path) -> None:
    """The barrier blocks until eight requests have arrived."""
    waiting = Answering(tiny_llava(), tiny_processor(), FOPRU, meeting=Barrier(8))
    with serving(waiting) as url:
        (row,) = run(
            model, data, tmp_path / "run", engine=url, keep_ratios=[0.25], baselines=[], tasks=["vqa"], limit=8
        )
    assert (row.n, row.failed) == (8, 0)


@pytest.mark.parametrize(
    "options", [{"strategies": ["grid"]}, {"strategies": ["fopru:layer=-2"]}, {"position_ids": ["compact"]}]
)
def test_other_settings_are_refused(model: str, data: Path, url: str, options: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"prunes with FoPru\(.*\) and original position IDs"):
        run(model, data, tmp_path / "run", engine=url, **options)


def test_the_only_baseline_of_a_server_is_unpruned(model: str, data: Path, url: str, tmp_path: Path) -> None:
    rows = run(model, data, tmp_path / "run", engine=url, baselines=None, keep_ratios=[0.25], tasks=["vqa"])
    assert [row.strategy for row in rows] == ["unpruned", "FoPru"]


def test_downsampling_is_refused(model: str, data: Path, url: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"a server does not run it\. Leave out downsample"):
        run(model, data, tmp_path / "run", engine=url, baselines=["downsample"])


def test_a_server_that_keeps_another_number(model: str, data: Path, tmp_path: Path) -> None:
    lying = Answering(tiny_llava(), tiny_processor(), FOPRU, keep_ratio=0.5)
    with (
        serving(lying) as url,
        pytest.raises(QuestionError, match=r"prompt has 18 of 36 visual tokens, but 9 should be kept"),
    ):
        run(model, data, tmp_path / "run", engine=url)


def test_an_error_of_the_server(model: str, data: Path, url: str, tmp_path: Path) -> None:
    path = data / "v2_OpenEnded_mscoco_val2014_questions.json"
    path.write_text(path.read_text().replace("Is it box 3?", "Is it bad?"))
    options: dict[str, Any] = {"engine": url, "tasks": ["vqa"], "keep_ratios": [0.25], "baselines": []}
    with pytest.raises(QuestionError, match="HTTP 400: this question is bad"):
        run(model, data, tmp_path / "run", **options)
    (row,) = run(model, data, tmp_path / "recorded", on_error="record", **options)
    assert (row.n, row.failed) == (8, 1)


def test_an_answer_without_content_is_not_scored(model: str, data: Path, url: str, tmp_path: Path) -> None:
    path = data / "v2_OpenEnded_mscoco_val2014_questions.json"
    path.write_text(path.read_text().replace("Is it box 3?", "Do you think?"))
    with pytest.raises(QuestionError, match="Start the server without --reasoning-parser"):
        run(model, data, tmp_path / "run", engine=url, tasks=["vqa"], keep_ratios=[0.25], baselines=[])


def test_a_server_with_an_api_key(answering: Answering, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering.key = "secret"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(DataError, match=r"asks for an API key\. Set OPENAI_API_KEY"):
        Server(url, "model")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert Server(url, "model").model == "model"


def test_no_server() -> None:
    with pytest.raises(DataError, match=r"http://127.0.0.1:9: no server answers there \(.*refused"):
        Server("http://127.0.0.1:9", "model")


@pytest.mark.parametrize(
    "found", [None, "<html>", '"a text"', '{"data": []}', '{"data": ["a"]}', '{"data": [{"id": "a"}]}']
)
def test_another_kind_of_server(found: str | None, tmp_path: Path) -> None:
    if found is not None:
        (tmp_path / "v1").mkdir()
        (tmp_path / "v1" / "models").write_text(found)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(DataError, match=r"does not answer /v1/models and /version as vLLM's server does"):
                Server(f"http://127.0.0.1:{server.server_port}", "model")
        finally:
            server.shutdown()
            thread.join()


class Dying(Answering):
    """Closes the connection instead of answering."""

    def post(self, request: dict[str, Any]) -> tuple[int, Any]:
        raise RuntimeError


def test_a_server_that_dies(model: str, data: Path, tmp_path: Path) -> None:
    with serving(Dying(tiny_llava(), tiny_processor(), FOPRU)) as url:
        for on_error in ("stop", "record"):
            with pytest.raises(DataError, match=r"no server answers there .*closed connection"):
                run(model, data, tmp_path / "run", engine=url, on_error=on_error)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "vlm"}, "engine 'vlm': write vllm, or the URL of a server"),
        (
            {"engine": "http://127.0.0.1:9", "engine_options": {"max_model_len": 5}},
            "a running server already has its options",
        ),
        ({"engine": "http://127.0.0.1:9", "dtype": "float32"}, "a running server already has its data type"),
    ],
)
def test_wrong_engines(model: str, data: Path, options: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=said):
        run(model, data, tmp_path / "run", **options)


def test_other_engine_options_are_another_run(
    model: str, data: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may quantise the model, or load a different adapter."""
    made = evaluating.engine_backend
    monkeypatch.setattr(
        evaluating,
        "engine_backend",
        lambda _engine, model, dtype, _options, on_error: made(url, model, dtype, {}, on_error),
    )
    run(model, data, tmp_path / "run", engine="vllm", engine_options={"quantization": "fp8"}, tasks=["vqa"])
    with pytest.raises(SettingError, match=r"holds another run, with engine_options\.quantization='fp8' and not"):
        run(model, data, tmp_path / "run", engine="vllm", tasks=["vqa"])


def test_a_loaded_model_has_no_engine(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="an engine loads the model itself"):
        evaluate((tiny_llava(), tiny_processor()), data=data, output=tmp_path / "run", engine="vllm")
