"""`GET /tokenprune` on vLLM's server: its strategy and settings, which `tokenprune eval --engine URL` reads. And HTTP
400 for images that another instance prepared with other settings."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from typing import Any

import tokenprune
from tokenprune.serving.vllm.settings import KEY, Settings

PATH = "/tokenprune"
#: vLLM's path for prompts that another instance has prepared (`vllm launch render`).
PREPARED = "/inference/v1/generate"
OTHER_SETTINGS = (
    "The images of this prompt were prepared with other settings than this engine prunes with. Start the instance that "
    "prepares prompts (vllm launch render) with the same --hf-overrides and the same version of tokenprune."
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Application = Callable[[Message, Receive, Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Endpoint:
    """An ASGI middleware, for vLLM's `--middleware`, that answers `PATH` (also below `--root-path`) and checks what is
    sent to `PREPARED`, if the engine prunes, and passes on all other requests."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self._body: bytes | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Callable[[Message], Awaitable[None]]) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) if scope["type"] == "http" else None
        if path not in (PATH, PREPARED):
            return await self.app(scope, receive, send)
        engine = scope["app"].state.vllm_config
        if not hasattr(engine.model_config.hf_config, KEY):  # an unpruned engine that has the middleware anyway
            return await self.app(scope, receive, send)
        if path == PREPARED:
            return await self.app(scope, checked(receive, Settings.of(engine.model_config.hf_config)), send)
        if self._body is None:  # vLLM reads the generation config anew each time, perhaps from the Hub
            self._body = json.dumps(described(engine)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(self._body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


def checked(receive: Receive, settings: Settings) -> Receive:
    """Return a `receive` that raises HTTPException 400, which vLLM answers, at the end of a body with images that were
    prepared with other settings: in the worker, these would end the engine. The body is only read when vLLM asks for
    it, so not of requests without its API key."""
    body = bytearray()

    async def checking() -> Message:
        message = await receive()
        if message["type"] == "http.request":
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                names = prepared(body)
                body.clear()  # may be megabytes, and the answer long
                if not all(f"-{settings.digest}" in name for name in names):
                    raise import_module("fastapi").HTTPException(400, OTHER_SETTINGS)
        return message

    return checking


def prepared(body: bytes | bytearray) -> list[str]:
    """Return the names that an instance gave the images of a prompt; [] for a body that vLLM refuses itself."""
    try:
        hashes = json.loads(body)["features"]["mm_hashes"]
        return [str(name) for names in hashes.values() for name in names]
    except (ValueError, LookupError, TypeError, AttributeError):
        return []


def described(vllm_config: Any) -> dict[str, Any]:
    """Return an engine's pruning settings, without the path of its record, and what its answers depend on.

    generation: the sampling parameters of requests that leave them out, and the tokens that end an answer.
    """
    model = vllm_config.model_config
    settings = {name: value for name, value in getattr(model.hf_config, KEY).items() if name != "record"}
    return {
        "tokenprune": tokenprune.__version__,
        "settings": settings,
        "architecture": model.hf_config.architectures[0],
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": vllm_config.device_config.device_type,
        "generation": {
            "eos_token_id": model.try_get_generation_config().get("eos_token_id"),
            **model.get_diff_sampling_param(),
        },
    }


#: The value of `--middleware`.
MIDDLEWARE = f"{__name__}.{Endpoint.__name__}"
