"""The entry point for lmms-eval, which names the model's module; lmms-eval loads that only if used."""

# pyright: reportMissingImports=false

from lmms_eval.models.registry_v2 import ModelManifest

_MODULE = "tokenprune.evals.harness.lmms"

MANIFEST = ModelManifest("tokenprune", simple_class_path=f"{_MODULE}.Simple", chat_class_path=f"{_MODULE}.Chat")
