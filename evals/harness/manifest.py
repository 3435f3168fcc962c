"""The entry point for lmms-eval: where the model's module is. lmms-eval loads that module only if it is used."""

# pyright: reportMissingImports=false

from lmms_eval.models.registry_v2 import ModelManifest

_MODULE = "tokenprune.evals.harness.lmms"

MANIFEST = ModelManifest("tokenprune", simple_class_path=f"{_MODULE}.Simple", chat_class_path=f"{_MODULE}.Chat")
