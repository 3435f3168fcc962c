"""The entry point `vllm.general_plugins`. vLLM calls `register` in every process, maybe several times."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import logging
from typing import Any

from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES, GENERIC
from tokenprune.serving.vllm.architectures.architecture import Architecture
from tokenprune.serving.vllm.architectures.releases import TESTED, reason_of_lack, tested
from tokenprune.serving.vllm.settings import KEY, Settings

logger = logging.getLogger("vllm.tokenprune")


def register() -> None:
    """Make the architectures known to vLLM; models under their own names stay as they are.

    vLLM ends if this raises, whatever model it is to serve: an error is logged, and vLLM is left as it was.
    """
    try:
        from vllm import ModelRegistry
        from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

        if not ARCHITECTURES.keys() <= MODELS_CONFIG_MAP.keys():
            add(ModelRegistry, MODELS_CONFIG_MAP, VerifyAndUpdateConfig)
    except Exception as error:  # noqa: BLE001  # another release may lack any name, or take other arguments
        logger.warning(
            "tokenprune's plug-in does not fit this vLLM, in which nothing can be pruned (%s: %s). Install vLLM %s.",
            type(error).__name__,
            error,
            tested("or"),
        )


def add(registry: Any, configs: dict[str, Any], plain: Any) -> None:
    """Add our architectures to vLLM's `registry` of models and its `configs` by architecture, of which it has none for
    most models; `plain` is the class that does nothing. Either all are added, or none and this raises."""
    served, before = set(registry.get_supported_archs()), dict(registry.models)
    added = {}
    try:
        for name, architecture in ARCHITECTURES.items():
            for own in served & {architecture.replaces, architecture.saved_as}:
                added[own] = unpruned_config(configs.get(own, plain), name)
            has = architecture.replaces in served and reason_of_lack(architecture) is None
            # Else any class: `missing_config` keeps it from being built.
            registry.register_model(name, f"{__package__}.models:{name if has else GENERIC}")
            base = configs.get(architecture.replaces, plain)
            added[name] = pruned_config(base, architecture) if has else missing_config(plain, architecture)
    except Exception:
        registry.models.clear()
        registry.models.update(before)
        raise
    configs.update(added)


def warn_if_untested(version: str) -> None:
    """Log a warning for a vLLM release that our tests do not cover."""
    if not version.startswith(tuple(f"{release}." for release in TESTED)):
        logger.warning(
            "tokenprune's plug-in is tested with vLLM %s, and this is vLLM %s. Compare accuracies with "
            "`tokenprune eval --engine`; in a clone, `make check-vllm` checks names.",
            tested("and"),
            version,
        )


def pruned_config(base: Any, architecture: Architecture) -> Any:
    """The class that vLLM uses to configure one of our models: `base`, the unpruned model's, with our checks."""

    class PrunedConfig(base):
        @staticmethod
        def verify_and_update_model_config(model_config: Any) -> None:
            from vllm import __version__

            from tokenprune.serving.vllm.metrics import SELECTION_TIMES
            from tokenprune.serving.vllm.name_tables import check_head, enter_in_tables, set_tokenizer_mode
            from tokenprune.serving.vllm.startup.refusals import check_model

            warn_if_untested(__version__)
            base.verify_and_update_model_config(model_config)
            check_head(architecture, model_config)
            check_model(architecture, model_config)
            if not architecture.mrope or architecture.own_sections:
                # vLLM then keeps position IDs per request. Only the top level says so, so that the language model,
                # which is built from the text config, keeps its own rotary embedding.
                model_config.hf_config.mrope_section = [1, 1, 1]
            set_tokenizer_mode(architecture, model_config)
            SELECTION_TIMES.share_folder()
            enter_in_tables(architecture)

        @staticmethod
        def verify_and_update_config(vllm_config: Any) -> None:
            from tokenprune.serving.vllm.startup.engine_options import check_engine

            base.verify_and_update_config(vllm_config)
            check_engine(architecture, vllm_config)
            settings = Settings.of(vllm_config.model_config.hf_config)
            logger.info(
                "%s prunes with %r and %s position IDs.%s%s",
                architecture.name,
                settings.strategy,
                settings.position_ids,
                " The frames of a video share one budget." if settings.joins_frames else "",
                " It leaves images whole." if settings.needs_video else "",
            )

    return PrunedConfig


def missing_config(base: Any, architecture: Architecture) -> Any:
    """The same for a model of ours that cannot be pruned in this vLLM: an error that says what to install."""

    class MissingConfig(base):
        @staticmethod
        def verify_and_update_model_config(model_config: Any) -> None:
            raise UnsupportedError(
                reason_of_lack(architecture)
                or f"this vLLM has no {architecture.replaces}, which {architecture.name} prunes. Install vLLM "
                f"{tested('or')}."
            )

    return MissingConfig


def unpruned_config(base: Any, pruning: str) -> Any:
    """The same for a model of vLLM's own that the architecture `pruning` serves pruned: settings, which would have no
    effect, are an error."""

    class UnprunedConfig(base):
        @staticmethod
        def verify_and_update_model_config(model_config: Any) -> None:
            base.verify_and_update_model_config(model_config)
            if hasattr(model_config.hf_config, KEY):
                raise SettingError(
                    f'--hf-overrides has "{KEY}", which has no effect on {model_config.architecture}. Add '
                    f'"architectures": ["{pruning}"] to it.'
                )

    return UnprunedConfig
