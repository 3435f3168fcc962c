"""A running server with the OpenAI API, by its URL."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from PIL import Image

from tokenprune.errors import DataError, SettingError, UnsupportedError
from tokenprune.evals.run.engines.engine import Engine, EngineError, Facts, Prompt, Reply, request_ratio, settings_of
from tokenprune.evals.run.setups import Pruned, Setup, Unpruned
from tokenprune.evals.storage.provenance import generation_identity
from tokenprune.prompts import NO_THINKING
from tokenprune.serving.vllm.endpoint import PATH
from tokenprune.serving.vllm.settings import Settings

#: The environment variable that OpenAI's own client reads.
API_KEY = "OPENAI_API_KEY"
#: Seconds after which a request has failed; a question waits for those before it.
PATIENCE = 600


class Server(Engine):
    """A server at `url`, with or without the final /v1, of `model`, a folder or a Hugging Face name. It must have been
    started with the settings of all setups except their keep ratios. DataError if no server answers there, or it is not
    vLLM's; SettingError if it serves another model."""

    at_once = 8
    any_strategy = False

    def __init__(self, url: str, model: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        try:
            served = {
                str(model["id"]): str(model.get("root") or model["id"]) for model in self._json("/v1/models")["data"]
            }
            first = next(iter(served))
            self.version = str(self._json("/version")["version"])
        except (EngineError, LookupError, TypeError, AttributeError, StopIteration) as error:
            raise DataError(
                f"{self.url}: does not answer /v1/models and /version as vLLM's server does ({error}). Start one with "
                f"`tokenprune serve`."
            ) from error
        named = [name for name, root in served.items() if name == model or same_model(root, model)]
        if not named:
            models = ", ".join(name if name == root else f"{name} ({root})" for name, root in served.items())
            raise SettingError(
                f"{self.url} serves {models}, and not {model}. Write --model {served[first]}, or start the server with "
                f"--served-model-name {model} if it is the same model under another name."
            )
        self.model = named[0]
        self.described = self._described()

    @property
    def settings(self) -> Settings | None:
        return Settings.read(self.described["settings"]) if self.described else None

    def groups(self, setups: Sequence[Setup]) -> list[list[Setup]]:
        """Return all setups in one group."""
        for setup in setups:
            self._check(setup)
        return [list(setups)]

    @contextmanager
    def serving(self, group: Sequence[Setup]) -> Iterator[None]:
        yield

    def facts(self) -> Facts:
        architecture, dtype, device = (
            str(self.described.get(name, "unknown")) for name in ("architecture", "dtype", "device")
        )
        generation = self.described.get("generation")
        return Facts(
            self.version, architecture, dtype, device, None if generation is None else generation_identity(generation)
        )

    def ask(self, prompts: Sequence[Prompt], setup: Setup) -> list[Reply | Exception]:
        with ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(lambda prompt: self._reply(prompt, setup), prompts))

    def _reply(self, prompt: Prompt, setup: Setup) -> Reply | Exception:
        images = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in prompt.images]
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": [*images, {"type": "text", "text": prompt.question}]}],
            "add_special_tokens": prompt.special_tokens,  # a server adds none by default
            "chat_template_kwargs": NO_THINKING,
            "temperature": 0,
            "max_tokens": prompt.max_new_tokens,
        }
        settings = self.settings
        if settings is not None and (ratio := request_ratio(setup, settings)) is not None:
            request["mm_processor_kwargs"] = {"keep_ratio": ratio}
        try:
            answer = self._json("/v1/chat/completions", request)
        except EngineError as error:
            return error
        content = answer["choices"][0]["message"]["content"]
        if content is None:
            return EngineError(
                f"{self.url}: an answer without content, as with a reasoning parser, whose reasoning is not scored. "
                f"Start the server without --reasoning-parser."
            )
        return Reply(content, answer["usage"]["prompt_tokens"])

    def _check(self, setup: Setup) -> None:
        if isinstance(setup, Unpruned):
            return
        if not isinstance(setup, Pruned):
            raise UnsupportedError(f"{setup.key}: a server does not run it. Leave out {setup.label}.")
        settings = self.settings
        if settings is None:
            raise UnsupportedError(
                f"{self.url} does not say what it prunes with, so nothing but --strategy none --baselines unpruned can "
                f"be measured. Start it with `tokenprune serve`."
            )
        own = Pruned(label="", keep_ratio=1.0, strategy=settings.strategy)
        same = type(settings.strategy) is type(setup.strategy) and settings_of(own) == settings_of(setup)
        if not same or settings.position_ids != setup.position_ids:
            raise UnsupportedError(
                f"{setup.key}: {self.url} prunes with {settings.strategy} and {settings.position_ids} position IDs. "
                f"Name the same with --strategy and --position-ids, or start another server."
            )
        if settings.by_pixels and request_ratio(setup, settings) == 1:
            raise UnsupportedError(
                f"{setup.key}: {self.url} has a keep ratio of {settings.strategy.keep_ratio}, and a request's of 1 "
                f"would turn pruning off. Start a server with --keep-ratio 1."
            )

    def _described(self) -> dict[str, Any]:
        """Return what the server says about its pruning, {} if nothing. Raises EngineError if it fails to say it."""
        try:
            return self._json(PATH)
        except EngineError as error:
            if getattr(error.__cause__, "code", 0) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            return {}

    def _json(self, path: str, request: dict[str, Any] | None = None) -> Any:
        data = None if request is None else json.dumps(request).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(API_KEY):
            headers["Authorization"] = f"Bearer {key}"
        try:
            with urlopen(Request(self.url + path, data, headers), timeout=PATIENCE) as response:
                return json.load(response)
        except HTTPError as error:
            with error:
                message = _error_message(error.read())
            if error.code == HTTPStatus.UNAUTHORIZED:
                raise DataError(
                    f"{self.url}: asks for an API key. Set {API_KEY} to the one that the server was started with."
                ) from error
            raise EngineError(f"{self.url}{path}: HTTP {error.code}: {message}") from error
        except ValueError as error:
            raise EngineError(f"{self.url}{path}: the answer is not JSON ({error})") from error
        except (OSError, HTTPException) as error:  # no server, or no longer
            reason = getattr(error, "reason", None) or repr(error)
            raise DataError(
                f"{self.url}: no server answers there ({reason}). Start one with `tokenprune serve`."
            ) from error


def same_model(root: str, model: str) -> bool:
    """Return whether a server that loaded `root` may serve `model`, each a folder or a Hugging Face name. For a folder
    on another machine, only the last part of the path can be compared."""
    if root == model:
        return True
    if Path(root).is_dir() and Path(model).is_dir():
        return Path(root).samefile(model)
    if all(name.count("/") == 1 and not Path(name).is_dir() for name in (root, model)):
        return False  # two Hugging Face names
    return Path(root).name == Path(model).name


def data_url(image: Image.Image) -> str:
    """Return an image as a URL that holds it, without loss."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _error_message(body: bytes) -> str:
    """Return the message in an error's JSON body, or the body itself."""
    try:
        return json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:200]
