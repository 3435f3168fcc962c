"""A server with vLLM's API in a thread, which answers with transformers and tokenprune."""

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, BrokenBarrierError, Lock, Thread
from typing import Any

from PIL import Image

import tokenprune
from tokenprune.prompts import NO_THINKING, chat_prompt, encode_chat, tokenizer_options
from tokenprune.serving.vllm.settings import Settings, split_request

VERSION = "0.32.0"


@dataclass
class Answering:
    """The server's behaviour, and the requests it received.

    settings: the settings that it reports; None for a plain vLLM, which reports none.
    keep_ratio: the keep ratio that it really uses; None for the reported one.
    meeting: how many requests it waits for before it answers the first.
    models: the models in /v1/models.
    key: the API key that requests need; None for none.
    generation: what it says of its generation config.
    """

    model: Any
    processor: Any
    settings: dict[str, Any] | None = None
    keep_ratio: float | None = None
    meeting: Barrier | None = None
    models: tuple[dict[str, Any], ...] = ({"id": "model"},)
    key: str | None = None
    generation: dict[str, Any] | None = field(default_factory=lambda: {"eos_token_id": 2})
    requests: list[dict[str, Any]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def get(self, path: str) -> tuple[int, Any]:
        answers: dict[str, Any] = {"/v1/models": {"data": [*self.models]}, "/version": {"version": VERSION}}
        if self.settings is not None:
            about = {"architecture": "TokenPruneLlava", "dtype": "float32", "device": "cpu"}
            answers["/tokenprune"] = {"settings": self.settings, **about, "generation": self.generation}
        return (200, answers[path]) if path in answers else (404, {"detail": "Not Found"})

    def post(self, request: dict[str, Any]) -> tuple[int, Any]:
        if self.meeting is not None:
            self.meeting.wait(20)
        with self.lock:
            self.requests.append(request)
            (message,) = request["messages"]
            *images, text = message["content"]
            if "think" in text["text"]:
                return 200, {"choices": [{"message": {"content": None}}], "usage": {"prompt_tokens": 9}}
            if "bad" in text["text"]:
                return 400, {"error": {"message": "this question is bad", "code": 400}}
            images = [decoded(part["image_url"]["url"]) for part in images]
            return 200, self._generated(images, text["text"], request)

    def _generated(self, images: list[Image.Image], text: str, request: dict[str, Any]) -> dict[str, Any]:
        begun = bool(tokenizer_options(self.processor, chat_prompt(self.processor, text, len(images))))
        assert (request["temperature"], request["add_special_tokens"]) == (0, not begun)
        assert request["chat_template_kwargs"] == NO_THINKING
        inputs = encode_chat(self.processor, [images], [text])
        n_prompt = inputs["input_ids"].shape[1]
        asked, _ = split_request({"keep_ratio": self.keep_ratio, **request.get("mm_processor_kwargs", {})})
        strategy = None if self.settings is None else Settings.read(self.settings).strategy_at(asked)
        with nullcontext() if strategy is None else tokenprune.patch(self.model, strategy):
            output = self.model.generate(**inputs, do_sample=False, max_new_tokens=request["max_tokens"])
        (answer,) = self.processor.batch_decode(output[:, n_prompt:], skip_special_tokens=True)
        if strategy is not None:
            n_visual = int((inputs["input_ids"] == self.processor.image_token_id).sum())
            n_prompt -= n_visual - strategy.budget(n_visual)
        return {"choices": [{"message": {"content": answer}}], "usage": {"prompt_tokens": n_prompt}}


def decoded(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


class JsonHandler(BaseHTTPRequestHandler):
    """Reads and sends JSON, and logs nothing."""

    def read_json(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def send_json(self, status: int, answer: Any) -> None:
        self.send_text(json.dumps(answer), status)

    def send_text(self, text: str, status: int = 200) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Yield the URL of a server in a thread."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving(answering: Answering) -> Iterator[str]:
    """Yield the URL of a server with this behaviour."""

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            if answering.key not in (None, (self.headers["Authorization"] or "").removeprefix("Bearer ")):
                self.send_json(401, {"error": "Unauthorized"})
                return
            self.send_json(*answering.get(self.path))

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            request = self.read_json()
            try:
                self.send_json(*answering.post(request))
            except BrokenBarrierError:
                self.send_json(500, {"error": {"message": "the others did not come", "code": 500}})

    with listening(Handler) as url:
        yield url
