"""`tokenprune serve` with the openai package: answers, settings, counters, and bad input."""

# pyright: reportMissingImports=false

import base64
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import torch
from helpers.served.engine import expected, needs_vllm
from helpers.served.reference import Request, draw
from helpers.served.server import ENVIRONMENT, OPTIONS, command, serving

import tokenprune.serving
from tokenprune.evals.run.engines.server import data_url

pytestmark = [needs_vllm, pytest.mark.slow, pytest.mark.smoke]

FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}
A, B = (1, 100, 100), (2, 150, 80)
N_NEW = 12


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("record") / "kept.jsonl"


@pytest.fixture(scope="module")
def url(llava: Path, record: Path) -> Iterator[str]:
    words = "--strategy", "fopru", "--keep-ratio", "0.25", "--record", str(record), "--trust-request-mm-kwargs"
    with serving(llava, *words) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    import openai

    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def ask(client: Any, *images: str, **extra: Any) -> Any:
    content = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[{"role": "user", "content": [*content, {"type": "text", "text": "w1 w2"}]}],
        temperature=0,
        max_tokens=N_NEW,
        extra_body={"ignore_eos": True, **extra},
    )


def image(seed: int, width: int, height: int) -> str:
    return data_url(draw(seed, width, height))


def as_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def words_of(llava: Path, tokens: list[int]) -> str:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(llava).decode(tokens, skip_special_tokens=True)


def test_vllm_finds_the_plug_in() -> None:
    assert "tokenprune" in entry_points(group="vllm.general_plugins").names


@pytest.mark.parametrize(("images", "keep_ratio", "n_dropped"), [((A,), None, 27), ((A, B), None, 54), ((B,), 0.5, 18)])
def test_answers(llava: Path, client: Any, images: Any, keep_ratio: float | None, n_dropped: int) -> None:
    extra = {} if keep_ratio is None else {"mm_processor_kwargs": {"keep_ratio": keep_ratio}}
    answer = ask(client, *(image(*one) for one in images), **extra)
    request = Request(" <image> " * len(images) + "w1 w2", images, n_new=N_NEW)
    (reference,) = expected(llava, {**FOPRU, "keep_ratio": keep_ratio or 0.25}, [request])
    assert answer.choices[0].message.content.split() == words_of(llava, reference.tokens).split()
    assert answer.usage.prompt_tokens == reference.n_prompt - n_dropped


def test_it_says_what_it_prunes_with(url: str) -> None:
    with urlopen(f"{url}/tokenprune") as response:
        found = json.load(response)
    assert found["settings"] == FOPRU
    assert "eos_token_id" in found["generation"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert (found["architecture"], found["dtype"], found["device"]) == ("TokenPruneLlava", "float32", device)


def test_the_record_and_the_counters(url: str, client: Any, record: Path) -> None:
    def counters() -> dict[str, float]:
        with urlopen(f"{url}/metrics") as response:
            lines = [line.split() for line in response.read().decode().splitlines() if line.startswith("tokenprune_")]
        return {name: float(value) for name, value in lines}

    before, n_lines = counters(), len(record.read_text().splitlines())
    ask(client, image(9, 60, 60))
    after = counters()
    gained = {name: after[name] - before[name] for name in after}
    assert gained["tokenprune_visual_tokens_total"] == 36
    assert gained["tokenprune_kept_visual_tokens_total"] == 9
    assert gained["tokenprune_selected_images_total"] == 1
    assert gained["tokenprune_selection_seconds_total"] > 0
    (line,) = record.read_text().splitlines()[n_lines:]
    assert (len(json.loads(line)["kept"]), json.loads(line)["n_visual"]) == (9, 36)


def test_vllms_own_benchmark(url: str, llava: Path) -> None:
    """As the page says, in the form for the CPU build. It counts the tokens that it sends, and those are pruned."""
    page = Path(tokenprune.serving.__file__).with_name("README.md").read_text(encoding="utf-8")
    (options,) = re.findall(r"^vllm bench serve (.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (program,) = re.findall(r"^python (-c 'from vllm.benchmarks.*)$", page, re.MULTILINE)
    few = {"1024, 1024": "64, 64", "Qwen/Qwen3-VL-8B-Instruct": str(llava), "8000": url.rpartition(":")[2]}
    for written, here in few.items():
        assert written in options
        options = options.replace(written, here)

    def n_input(*more: str) -> int:
        words = [*shlex.split(program), *shlex.split(options.replace("\\\n", " ")), "--num-prompts", "2", *more]
        ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, check=True)
        counts = dict(re.findall(r"^(Successful requests|Total input tokens): +(\d+)", ended.stdout, re.MULTILINE))
        assert counts["Successful requests"] == "2"
        return int(counts["Total input tokens"])

    whole = json.dumps({"mm_processor_kwargs": {"keep_ratio": 1.0}})
    assert n_input("--extra-body", whole) - n_input() == 2 * 27


def truncated() -> bytes:
    file = io.BytesIO()
    draw(1, 100, 100).save(file, "PNG")
    return file.getvalue()[:-200]


@pytest.mark.parametrize(
    ("image", "kwargs", "said"),
    [
        (image(*A), {"keep_ratio": 0}, "keep_ratio=0 is not a fraction in (0, 1]"),
        (image(*A), {"keep_ratio": 1.5}, "keep_ratio=1.5 is not a fraction in (0, 1]"),
        (image(*A), {"keep_ratio": "half"}, "keep_ratio='half' is not a fraction in (0, 1]"),
        (image(*A), {"keepratio": 0.5}, "'keepratio' does nothing. Did you mean 'keep_ratio'?"),
        (image(*A), {"strategy": "grid"}, "'strategy' is a setting of the whole engine"),
        (image(*A), {"images_kwargs": 5}, "'images_kwargs': expected a dict"),
        (as_url(truncated()), {}, "image file is truncated"),
        (as_url(b"no image"), {}, "cannot identify image file"),
    ],
)
def test_bad_input_is_an_error_and_the_server_lives_on(client: Any, image: str, kwargs: Any, said: str) -> None:
    import openai

    before = ask(client, data_url(draw(*A))).choices[0].message.content
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, image, mm_processor_kwargs=kwargs)
    assert said in str(caught.value)
    assert ask(client, data_url(draw(*A))).choices[0].message.content == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategy", "fastv"], "FastV cannot run inside vLLM: it needs the attention of decoder layers"),
        (["--pipeline-parallel-size", "2"], "--pipeline-parallel-size cannot be combined with pruned images"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(llava: Path, words: list[str], said: str) -> None:
    ended = subprocess.run(
        [*command(llava, *words), *OPTIONS],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode != 0
    assert said in ended.stdout + ended.stderr
