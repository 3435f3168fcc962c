"""`GET /tokenprune` on vLLM's server: its strategy and settings, which `tokenprune eval --engine URL` reads."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import tokenprune
from tokenprune.serving.vllm.settings import KEY

PATH = "/tokenprune"

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class Endpoint:
    """An ASGI middleware, for vLLM's `--middleware`, that answers this path (also below `--root-path`) if the engine
    prunes, and passes on all other requests."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self._body: bytes | None = None

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http" or scope["path"].removeprefix(scope.get("root_path", "")) != PATH:
            return await self.app(scope, receive, send)
        engine = scope["app"].state.vllm_config
        if not hasattr(engine.model_config.hf_config, KEY):  # an unpruned engine that has the middleware anyway
            return await self.app(scope, receive, send)
        if self._body is None:  # vLLM reads the generation config anew each time, perhaps from the Hub
            self._body = json.dumps(described(engine)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(self._body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


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
