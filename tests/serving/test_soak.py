"""Two thousand requests: every answer equals transformers', and memory does not grow with their number."""

# pyright: reportMissingImports=false

import gc
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.served.engine import engine, expected, needs_vllm, served
from helpers.served.reference import Request, draw
from helpers.served.server import serving

from tokenprune.evals.run.engines.server import data_url

pytestmark = [needs_vllm, pytest.mark.slow]

FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}
N_REQUESTS, N_CLIENTS, N_NEW = 2000, 16, 8
#: The beginning of most requests, so that they share blocks of the prefix cache.
PREFIX = " ".join(f"w{i % 70}" for i in range(70))
#: Bytes of growth after the first quarter that are not a leak: 1,500 images of 20 kB would take as much.
MOST_GROWTH = 32e6


def requests() -> list[Request]:
    """Return different requests that share images and beginnings, in a fixed order."""
    chosen = random.Random(0)
    images = [(seed, chosen.randrange(20, 300), chosen.randrange(20, 300)) for seed in range(20)]
    found = []
    for number in range(80):
        own = tuple(chosen.sample(images, chosen.choice((0, 1, 1, 1, 2, 3))))
        text = f"{' <image> ' * len(own)}{PREFIX if number % 3 else ''} w{number % 80}"
        ratio = chosen.choice((None, None, 0.5, 1.0)) if own else None
        found.append(Request(text, own, N_NEW, ratio))
    return found


class Clients:
    """Clients that send requests to a server and compare the answers."""

    def __init__(self, url: str, references: dict[Request, list[str]]) -> None:
        import openai

        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self.model = self.client.models.list().data[0].id
        self.references = references
        self.urls = {one: data_url(draw(*one)) for request in references for one in request.images}
        self.drawn = list(references)

    def send(self, number: int) -> str:
        """Send one request and return its outcome."""
        import openai

        chosen = random.Random(number)
        request, kind = chosen.choice(self.drawn), chosen.random()
        images = [self.urls[one] for one in request.images]
        if kind < 0.05:
            with pytest.raises(openai.BadRequestError):
                self._ask(request, [*images, self._corrupt(chosen)])
            return "corrupt"
        if kind < 0.1:
            with self._ask(request, images, stream=True) as stream:
                next(iter(stream))
            return "cancelled"
        answer = self._ask(request, images).choices[0].message.content.split()
        return "equal" if answer == self.references[request] else f"{request}: {answer}"

    def _ask(self, request: Request, images: list[str], **options: Any) -> Any:
        text = request.text.replace("<image>", "").strip()
        content = [{"type": "image_url", "image_url": {"url": image}} for image in images]
        extra = {} if request.keep_ratio is None else {"mm_processor_kwargs": {"keep_ratio": request.keep_ratio}}
        return self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": [*content, {"type": "text", "text": text}]}],
            temperature=0,
            max_tokens=N_NEW,
            extra_body={"ignore_eos": True, **extra},
            **options,
        )

    @staticmethod
    def _corrupt(chosen: random.Random) -> str:
        url = data_url(draw(chosen.randrange(1000), 100, 100))
        return url[: chosen.randrange(len(url) // 8, len(url) // 2) // 4 * 4 + len(url) % 4]


def memory(url: str) -> int:
    """Return the bytes that the server's processes hold."""
    port = int(url.rpartition(":")[2])
    (server,) = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port
    }
    process = psutil.Process(server)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


@pytest.fixture(scope="module")
def url(llava: Path) -> Iterator[str]:
    words = "--strategy", "fopru", "--keep-ratio", "0.25", "--trust-request-mm-kwargs", "--disable-uvicorn-access-log"
    with pytest.MonkeyPatch.context() as environment:
        # oneDNN keeps a kernel for every length that it sees, pruned or not, and requests keep bringing new ones.
        for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
            environment.setenv(name, "16")
        # The cache fills up early, since its memory counts once it is written to. Requests are then also preempted.
        with serving(llava, *words, "--num-gpu-blocks-override", "64") as url:
            yield url


def test_two_thousand_requests(llava: Path, url: str) -> None:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(llava)
    drawn = requests()
    answers = expected(llava, FOPRU, [replace(one, text=f"{one.text} ") for one in drawn])
    texts = [words.decode(answer.tokens, skip_special_tokens=True).split() for answer in answers]
    clients = Clients(url, dict(zip(drawn, texts, strict=True)))
    assert len({" ".join(text) for text in texts}) > 40
    sizes, outcomes = [], Counter[str]()
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        for quarter in range(4):
            numbers = range(quarter * N_REQUESTS // 4, (quarter + 1) * N_REQUESTS // 4)
            outcomes.update(pool.map(clients.send, numbers))
            sizes.append(memory(url))
    print(outcomes, [f"{size / 1e6:.1f} MB" for size in sizes])
    assert set(outcomes) == {"equal", "corrupt", "cancelled"}
    assert min(outcomes["corrupt"], outcomes["cancelled"]) > N_REQUESTS * 0.03
    assert sizes[-1] - sizes[0] < MOST_GROWTH


def test_the_same_requests_again_need_no_more_memory(llava: Path) -> None:
    """In this process, with only lengths that occurred in the first passes. Measured: no growth at all."""
    drawn, process, sizes = requests(), psutil.Process(), []
    with engine(llava, "TokenPruneLlava", FOPRU, num_gpu_blocks_override=64, enable_prefix_caching=False) as llm:
        for _ in range(9):
            served(llm, drawn)
            gc.collect()
            sizes.append(process.memory_info().rss)
    assert sizes[-1] - sizes[3] < MOST_GROWTH / 8, sizes
