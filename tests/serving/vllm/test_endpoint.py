"""`GET /tokenprune` without a server, and prompts that another instance of vLLM has prepared."""

# pyright: reportMissingImports=false

import asyncio
import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tokenprune.serving.vllm.endpoint import OTHER_SETTINGS, PREPARED, Endpoint
from tokenprune.serving.vllm.settings import Settings

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


PRUNED = {"strategy": "fopru", "keep_ratio": 0.25}
OURS = f"0a1b-{Settings.read(PRUNED).digest}"
OTHERS = f"0a1b-{Settings.read({**PRUNED, 'keep_ratio': 0.5}).digest}"


class Refused(Exception): ...


def state(**of_config: Any) -> Any:
    config = SimpleNamespace(architectures=["TokenPruneUnlimitedOCR"], **of_config)
    return SimpleNamespace(vllm_config=SimpleNamespace(model_config=SimpleNamespace(hf_config=config)))


def read(body: bytes, path: str = PREPARED, root_path: str = "", **of_config: Any) -> bytes:
    """Return the body that the application behind the middleware reads, in pieces."""
    pieces = [body[:7], body[7:20], body[20:]]
    sent = [{"type": "http.request", "body": piece, "more_body": i < len(pieces) - 1} for i, piece in enumerate(pieces)]
    sent.append({"type": "http.disconnect"})
    got: list[Any] = []

    async def receive() -> Any:
        return sent.pop(0)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            got.append(message["body"])

    scope: dict[str, Any] = {"type": "http", "path": path, "root_path": root_path}
    scope["app"] = SimpleNamespace(state=state(**(of_config or {"tokenprune": PRUNED})))
    asyncio.run(Endpoint(application)(scope, receive, None))  # pyright: ignore[reportArgumentType]
    return b"".join(got)


def prompt(*names: str) -> bytes:
    return json.dumps({"token_ids": [1, 2], "features": {"mm_hashes": {"image": names}}}).encode()


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", SimpleNamespace(HTTPException=Refused))  # part of vLLM


@pytest.mark.parametrize(
    "body",
    [prompt(OURS), prompt(OURS, f"{OURS}-uncropped"), prompt(), b'{"token_ids": [1]}', b'{"features": null}'],
)
def test_images_of_the_same_settings(body: bytes, refusing: None) -> None:
    assert read(body) == body


@pytest.mark.parametrize("body", [b'{"features": ', b"[]", b"\xff", b'{"features": {"mm_hashes": [1]}}'])
def test_what_is_malformed_is_left_to_vllm(body: bytes, refusing: None) -> None:
    assert read(body) == body


@pytest.mark.parametrize("names", [["0a1b"], [OTHERS], [OURS, "0a1b"]])
@pytest.mark.parametrize("root_path", ["", "/models/ocr"])
def test_images_of_other_settings(names: list[str], root_path: str, refusing: None) -> None:
    with pytest.raises(Refused) as caught:
        read(prompt(*names), root_path + PREPARED, root_path)
    assert caught.value.args == (400, OTHER_SETTINGS)


def test_other_requests_and_engines(refusing: None) -> None:
    body = prompt("0a1b")
    assert read(body, "/v1/chat/completions") == body
    assert read(body, model_type="llava") == body  # an unpruned engine that has the middleware anyway


def test_vllm_answers_it() -> None:
    """In its own form, and only after it has checked the API key: this middleware comes before vLLM's own."""
    pytest.importorskip("vllm")
    from fastapi import Depends, FastAPI, HTTPException
    from fastapi.testclient import TestClient
    from vllm.entrypoints.scale_out.token_in_token_out.protocol import MultiModalFeatures, PlaceholderRangeInfo
    from vllm.entrypoints.serve.exception_handling.handlers.http import http_exception_handler
    from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware
    from vllm.entrypoints.serve.utils.api_utils import validate_json_request

    app = FastAPI()
    app.state.vllm_config, app.state.args = state(tokenprune=PRUNED).vllm_config, SimpleNamespace(log_error_stack=False)
    app.exception_handler(HTTPException)(http_exception_handler)

    @app.post(PREPARED, dependencies=[Depends(validate_json_request)])
    async def generate(body: dict[str, Any]) -> Any:
        return body

    app.add_middleware(AuthenticationMiddleware, tokens=["key"])
    app.add_middleware(Endpoint)
    client, place = TestClient(app), PlaceholderRangeInfo(offset=0, length=1)
    for name, key, status in ((OURS, "key", 200), ("0a1b", "key", 400), ("0a1b", "other", 401)):
        features = MultiModalFeatures(mm_hashes={"image": [name]}, mm_placeholders={"image": [place]}).model_dump()
        headers = {"authorization": f"Bearer {key}"}
        answer = client.post(PREPARED, json={"features": features}, headers=headers)
        assert answer.status_code == status, answer.text
        if status == 400:
            assert answer.json()["error"]["message"] == OTHER_SETTINGS
