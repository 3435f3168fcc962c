"""The plug-in's additions do not change vLLM's own models, and the options that `tokenprune serve` passes on exist in
vLLM."""

# pyright: reportMissingImports=false

import logging
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from helpers.served.engine import needs_vllm

from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.evals.cli import build_parser
from tokenprune.evals.cli.serve import misspelt
from tokenprune.serving.vllm import name_tables
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.releases import reason_of_lack
from tokenprune.serving.vllm.name_tables import check_head, enter_in_tables
from tokenprune.serving.vllm.plugin import register
from tokenprune.serving.vllm.startup import engine_options, refusals

pytestmark = needs_vllm


@pytest.mark.parametrize("name", ["TokenPruneQwen3_5", "Qwen3_5ForConditionalGeneration"])
def test_what_vllm_sets_for_a_class(
    name: str, monkeypatch: pytest.MonkeyPatch, vllm_log: pytest.LogCaptureFixture
) -> None:
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    register()
    register()
    monkeypatch.setattr(engine_options, "check_engine", lambda *_: None)
    text, cache = SimpleNamespace(mamba_ssm_dtype="float32"), SimpleNamespace(mamba_ssm_cache_dtype="auto")
    ours = SimpleNamespace(architectures=[name], tokenprune={"strategy": "evs"})  # which the log line names
    model = SimpleNamespace(hf_config=ours, hf_text_config=text)
    config: Any = SimpleNamespace(model_config=model, cache_config=cache)
    with vllm_log.at_level(logging.INFO, "vllm"):
        MODELS_CONFIG_MAP[name].verify_and_update_config(config)
    assert cache.mamba_ssm_cache_dtype == "float32"
    assert ("It leaves images whole." in vllm_log.text) == name.startswith("TokenPrune")


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("LlavaForConditionalGeneration", 'Add "architectures": ["TokenPruneLlava"] to it'),
        ("Qwen2_5OmniForConditionalGeneration", 'Add "architectures": ["TokenPruneQwen2_5Omni"] to it'),
    ],
)
def test_settings_without_effect(name: str, way_out: str) -> None:
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    register()
    config: Any = SimpleNamespace(hf_config=SimpleNamespace(), architecture=name)
    verify = MODELS_CONFIG_MAP[name].verify_and_update_model_config
    verify(config)  # vLLM's own model, unchanged
    config.hf_config.tokenprune = {"strategy": "fopru", "keep_ratio": 0.25}
    with pytest.raises(SettingError, match=re.escape(f"no effect on {name}. {way_out}")):
        verify(config)


@pytest.fixture
def vllm_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Every record of vLLM's loggers once: pytest attaches `caplog` to them only if vLLM was imported before."""
    import vllm  # noqa: F401  # it configures its loggers

    logger = logging.getLogger("vllm")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    return caplog


def test_only_what_the_plugin_prunes_is_configured_by_it() -> None:
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    register()
    ours = {name for name, one in MODELS_CONFIG_MAP.items() if one.__module__ == register.__module__}
    prunes = {name for one in ARCHITECTURES.values() for name in (one.name, one.replaces, one.saved_as)}
    assert ARCHITECTURES.keys() <= ours <= prunes


@pytest.mark.parametrize(
    "missing",
    [
        "vllm.model_executor.models.config.MODELS_CONFIG_MAP",
        "vllm.model_executor.models.registry._ModelRegistry.get_supported_archs",
        "vllm.model_executor.models.registry._ModelRegistry.register_model",
    ],
)
def test_a_vllm_without_the_names_that_the_plug_in_uses(
    missing: str, monkeypatch: pytest.MonkeyPatch, vllm_log: pytest.LogCaptureFixture
) -> None:
    """vLLM ends if a plug-in raises an error, whatever model it is to serve."""
    from vllm.model_executor.models import config
    from vllm.model_executor.models.registry import ModelRegistry

    own = [name for name in ModelRegistry.models if name not in ARCHITECTURES]
    monkeypatch.setattr(ModelRegistry, "models", {name: ModelRegistry.models[name] for name in own})
    configs = {name: one for name, one in config.MODELS_CONFIG_MAP.items() if one.__module__ == config.__name__}
    monkeypatch.setattr(config, "MODELS_CONFIG_MAP", dict(configs))
    left = config.MODELS_CONFIG_MAP
    monkeypatch.delattr(missing)
    register()
    (record,) = vllm_log.records
    said = record.getMessage()
    assert "does not fit this vLLM, in which nothing can be pruned" in said
    assert missing.rpartition(".")[2] in said
    assert said.endswith("Install vLLM 0.32, 0.33 or 0.34.")
    assert (list(ModelRegistry.models), left) == (own, configs)


def test_a_vllm_that_refuses_the_last_architecture(
    monkeypatch: pytest.MonkeyPatch, vllm_log: pytest.LogCaptureFixture
) -> None:
    from vllm.model_executor.models import config
    from vllm.model_executor.models.registry import ModelRegistry

    def refuse_last(name: str, model: str) -> None:
        if name == list(ARCHITECTURES)[-1]:
            raise TypeError("no strings")
        ModelRegistry.models[name] = model

    own = {name: one for name, one in ModelRegistry.models.items() if name not in ARCHITECTURES}
    configs = {name: one for name, one in config.MODELS_CONFIG_MAP.items() if name not in ARCHITECTURES}
    monkeypatch.setattr(ModelRegistry, "models", dict(own))
    monkeypatch.setattr(config, "MODELS_CONFIG_MAP", dict(configs))
    monkeypatch.setattr(ModelRegistry, "register_model", refuse_last)
    register()
    assert "(TypeError: no strings)" in vllm_log.text
    assert (ModelRegistry.models, config.MODELS_CONFIG_MAP) == (own, configs)


@pytest.fixture
def melody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a package without which vLLM's parser for Cohere cannot be imported."""
    module: Any = ModuleType("cohere_melody")
    for name in ("AccumulatedToolCall", "FilterAggregatedResult", "PyFilter", "PyFilterOptions"):
        setattr(module, name, type(name, (), {}))
    if find_spec("cohere_melody") is None:
        monkeypatch.setitem(sys.modules, "cohere_melody", module)
    name_tables.entries_of.cache_clear()


@pytest.mark.usefixtures("melody")
def test_tool_calls_and_json_of_cohere() -> None:
    from vllm.parser.cohere_command import convert_schema_to_structural_tags

    enter_in_tables(ARCHITECTURES["TokenPruneCohere2Vision"])
    own, ours = (
        convert_schema_to_structural_tags({"type": "object"}, None, name)
        for name in ("Cohere2VisionForConditionalGeneration", "TokenPruneCohere2Vision")
    )
    assert own is not None
    assert ours == own


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (
            "cohere_melody",
            "Tool calls and JSON schemas will .* MODEL_TO_TAG_STYLE .*melody.* install the package cohere_m",
        ),
        ("vllm.parser.cohere_command", "cannot be imported .*cohere_command.* install vLLM 0.32, 0.33 or 0.34"),
    ],
)
def test_a_table_that_cannot_be_imported(
    missing: str, said: str, monkeypatch: pytest.MonkeyPatch, vllm_log: pytest.LogCaptureFixture
) -> None:
    """Its model is served without it, and the log says so once."""

    def module_of(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    name_tables.entries_of.cache_clear()
    monkeypatch.setattr(name_tables, "import_module", module_of)
    for _ in range(2):
        enter_in_tables(ARCHITECTURES["TokenPruneCohere2Vision"])
    name_tables.entries_of.cache_clear()
    (record,) = vllm_log.records
    assert re.search(said, record.getMessage())


def test_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    register()
    monkeypatch.setattr(refusals, "check_model", lambda *_: None)
    config: Any = SimpleNamespace(hf_config=SimpleNamespace())
    MODELS_CONFIG_MAP["TokenPruneLfm2VL"].verify_and_update_model_config(config)
    place = "openai.decisions" if find_spec("vllm.entrypoints.openai.decisions") else "generate.structured_decisions"
    table = import_module(f"vllm.entrypoints.{place}.strategies").READ_STRATEGIES
    assert table["TokenPruneLfm2VL"] is table["Lfm2VlForConditionalGeneration"]


@pytest.mark.parametrize(("chosen", "mode"), [("auto", "kimi_k3"), ("hf", "hf")])
@pytest.mark.parametrize("version", ["3", "31"])
def test_what_vllm_knows_of_kimi_k3_by_its_name(
    version: str, chosen: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How prompts are rendered, and that CUDA graphs are breakable."""
    from vllm.config import vllm as config
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    name = f"TokenPruneKimiK{version}"
    if reason := reason_of_lack(ARCHITECTURES[name]):
        pytest.skip(reason)
    register()
    monkeypatch.setattr(refusals, "check_model", lambda *_: None)
    monkeypatch.setattr(
        config, "DEFAULT_BREAKABLE_CUDAGRAPH_ARCHITECTURES", config.DEFAULT_BREAKABLE_CUDAGRAPH_ARCHITECTURES
    )
    parts = {part: SimpleNamespace() for part in ("hf_config", "hf_text_config", "model_arch_config")}
    model: Any = SimpleNamespace(tokenizer_mode=chosen, **parts)
    MODELS_CONFIG_MAP[name].verify_and_update_model_config(model)
    assert model.tokenizer_mode == mode
    both = {name, f"KimiK{version}ForConditionalGeneration"}
    assert both <= config.default_breakable_cudagraph_architectures()


def test_a_checkpoint_with_another_head(tmp_path: Path) -> None:
    """vLLM recognises it by a file, and then uses another class, which is not ours."""
    config = SimpleNamespace(model=str(tmp_path), revision=None)
    check_head(ARCHITECTURES["TokenPruneQwen3Omni"], config)
    (tmp_path / "joint_head_config.json").write_text("{}")
    check_head(ARCHITECTURES["TokenPruneQwen2_5Omni"], config)
    with pytest.raises(
        UnsupportedError, match=r"vLLM serves it as ClefOmniForJointSchema, .* Serve it without pruning"
    ):
        check_head(ARCHITECTURES["TokenPruneQwen3Omni"], config)


@pytest.mark.parametrize("table", ["engram._NGRAM_LAYER_FIELDS", "vllm.DEFAULT_BREAKABLE_CUDAGRAPH_ARCHITECTURES"])
def test_engines_that_vllm_prepares_by_name(table: str) -> None:
    """For embeddings of n-grams, which it keeps in host memory, and for CUDA graphs of uncompiled code."""
    module, name = table.split(".")
    for architecture in ARCHITECTURES.values():
        enter_in_tables(architecture)
    names = getattr(import_module(f"vllm.config.{module}"), name)
    ours = {one.name for one in ARCHITECTURES.values() if one.replaces in names}
    assert "TokenPruneQwen4Exp" in ours
    assert ours == ARCHITECTURES.keys() & set(names)


def test_cuda_graphs_after_an_engine_of_another_model() -> None:
    """vLLM remembers for which architectures it uses them."""
    from vllm.config.vllm import VllmConfig, default_breakable_cudagraph_architectures

    default_breakable_cudagraph_architectures()
    enter_in_tables(ARCHITECTURES["TokenPruneQwen4Exp"])
    config: Any = SimpleNamespace(model_config=SimpleNamespace(architectures=["TokenPruneQwen4Exp"]))
    assert VllmConfig._uses_breakable_cudagraph_by_default(config)


def test_cuda_graphs_of_nvidias_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """For which vLLM 0.34 has another class of Qwen3.5."""
    from vllm.config import vllm

    gpu = SimpleNamespace(is_rocm=lambda: False, is_cuda=lambda: True)
    for module in (import_module("vllm.platforms"), vllm):  # asked up to 0.33, and from 0.34 on
        monkeypatch.setattr(module, "current_platform", gpu, raising=False)
    names = vllm.DEFAULT_BREAKABLE_CUDAGRAPH_ARCHITECTURES
    monkeypatch.setattr(vllm, "DEFAULT_BREAKABLE_CUDAGRAPH_ARCHITECTURES", names)
    vllm.default_breakable_cudagraph_architectures.cache_clear()
    enter_in_tables(ARCHITECTURES["TokenPruneQwen3_5"])
    found = vllm.default_breakable_cudagraph_architectures()
    vllm.default_breakable_cudagraph_architectures.cache_clear()
    assert ("TokenPruneQwen3_5" in found) == ("Qwen3_5ForConditionalGeneration" in found)


def test_no_option_of_vllms_is_taken_for_a_misspelt_one() -> None:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    (commands,) = (action.choices for action in build_parser()._actions if isinstance(action.choices, dict))
    ours = {option for action in commands["serve"]._actions for option in action.option_strings}
    actions = make_arg_parser(FlexibleArgumentParser())._actions
    theirs = {option for action in actions for option in action.option_strings} - ours
    assert {"--api-key", "--max-model-len"} < theirs
    assert {option: meant for option in theirs if (meant := misspelt(option, commands["serve"])) is not None} == {}
