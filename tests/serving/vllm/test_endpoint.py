"""`GET /tokenprune` without a server."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from tokenprune.serving.vllm.endpoint import Endpoint

#: A checkpoint's, without which its answers are not reproduced.
SAMPLING = {"repetition_penalty": 1.05, "max_tokens": 99}
SETTINGS = {"strategy": "fopru", "keep_ratio": 0.25, "record": "/home/me/kept.jsonl"}


def get(path: str, root_path: str = "", **of_config: object) -> Any:
    """Return the endpoint's answer or, if it passes the request on, the path that the application behind it gets."""
    config = SimpleNamespace(architectures=["TokenPruneLlava"], **(of_config or {"tokenprune": SETTINGS}))
    model = SimpleNamespace(
        hf_config=config,
        dtype="torch.bfloat16",
        try_get_generation_config=lambda: {"eos_token_id": [2, 7], "repetition_penalty": 1.3},
        get_diff_sampling_param=lambda: SAMPLING,
    )
    engine = SimpleNamespace(model_config=model, device_config=SimpleNamespace(device_type="cuda"))
    app = SimpleNamespace(state=SimpleNamespace(vllm_config=engine))
    sent: list[Any] = []

    async def passed_on(scope: Any, receive: Any, send: Any) -> None:
        sent.append({"body": json.dumps(scope["path"])})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "root_path": root_path, "app": app}
    asyncio.run(Endpoint(passed_on)(scope, None, send))  # pyright: ignore[reportArgumentType]
    return json.loads(sent[-1]["body"])


@pytest.mark.parametrize("root_path", ["", "/models/llava"])
def test_the_settings(root_path: str) -> None:
    """A proxy that serves several engines under different paths may pass the paths on."""
    for path in ("/tokenprune", f"{root_path}/tokenprune"):
        told = get(path, root_path)
        assert (told["settings"], told["dtype"]) == ({"strategy": "fopru", "keep_ratio": 0.25}, "bfloat16")
        assert told["generation"] == {"eos_token_id": [2, 7], **SAMPLING}


def test_other_paths_are_passed_on() -> None:
    assert get("/v1/models") == "/v1/models"
    assert get("/other/tokenprune", "/models/llava") == "/other/tokenprune"


def test_an_unpruned_engine_has_no_such_path() -> None:
    assert get("/tokenprune", model_type="llava") == "/tokenprune"
