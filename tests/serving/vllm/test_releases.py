"""Releases of vLLM with which the plug-in was not tested."""

from __future__ import annotations

import pytest

from tokenprune.serving.vllm.plugin import warn_if_untested


def test_a_release_of_vllm_that_was_not_tested(caplog: pytest.LogCaptureFixture) -> None:
    warn_if_untested("0.32.1")
    warn_if_untested("0.33.0")
    assert not caplog.records
    warn_if_untested("0.34.0")
    (record,) = caplog.records
    assert "tested with vLLM 0.32 and 0.33, and this is vLLM 0.34.0" in record.getMessage()
