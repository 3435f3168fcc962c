"""What lmms-eval finds under the entry point: where the model is. It loads the model's module when asked for it."""

# pyright: reportMissingImports=false

from lmms_eval.models.registry_v2 import ModelManifest

_MODULE = "tokenprune.evals.harness.lmms"

MANIFEST = ModelManifest("tokenprune", simple_class_path=f"{_MODULE}.Simple", chat_class_path=f"{_MODULE}.Chat")
