"""The models that are pruned inside vLLM. Does not load vLLM or torch.

architecture  the record of a model
families      the records, one file for each group of similar models; their classes are in `models`
checkpoints   which architecture serves which checkpoint
params        the config in params.json, which checkpoints in Mistral's own format have
releases      which vLLM releases have an architecture
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from tokenprune.serving.vllm.architectures import families
from tokenprune.serving.vllm.architectures.architecture import Architecture, by_name

#: Serves all other models, on vLLM's Transformers backend.
GENERIC = "TokenPruneTransformers"


#: The records of all modules in `families`.
RECORDS: tuple[Architecture, ...] = tuple(
    record
    for module in iter_modules(families.__path__, f"{families.__name__}.")
    for record in import_module(module.name).RECORDS
)
ARCHITECTURES = by_name(RECORDS)
