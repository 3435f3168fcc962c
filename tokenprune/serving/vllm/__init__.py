"""The vLLM plug-in: pruned images in an unmodified vLLM.

plugin             the entry point: registers the architectures `TokenPrune...`
architectures      the models, and what the plug-in must know of each to prune it
checkpoints        which architecture serves which checkpoint
params             the config in params.json, which checkpoints in Mistral's own format have
models             one file for each family of models
settings           `--hf-overrides '{"tokenprune": {...}}'`, and a request's `mm_processor_kwargs`
refusals           models and strategies that cannot work
engine_options     engine options that cannot be combined with pruning
processing         in the API server: a placeholder for each token that will be kept, and the hash for caching images
processor_options  request options that do not fit the vision tower
markers            text between the visual tokens of an image
worker             in the worker: encode, select, position IDs
patches            an image as seen by strategies that prune before the tower
towers             vision towers as vLLM builds them, from a model's config
radio              the vision tower of Nemotron models
drafts             speculative decoding: which methods work, and features without offsets for draft heads
name_tables        tables in which vLLM looks up an architecture by its name
differences        where vLLM computes differently from transformers, logged when the engine starts
metrics            Prometheus counters, and a file of kept indices
hf_overrides       the `--hf-overrides` that `tokenprune serve` passes for a strategy and a model
endpoint           GET /tokenprune: the server's strategy and settings

Only this folder imports vLLM. The commands and evals import only `settings`, `architectures`, `checkpoints`,
`params`, `hf_overrides`, `refusals` and `endpoint`, which do not load it; nothing else imports this folder.
"""
