"""The vLLM plug-in: pruned images in an unmodified vLLM.

plugin         the entry point: registers the architectures `TokenPrune...`
name_tables    tables in which vLLM looks up an architecture by its name
architectures  the models, what the plug-in must know of each to prune it, and which checkpoint each serves
relied_on      names of vLLM and calls of our overrides, which must be as listed in relied_on.json
models         one file for each family of models
settings       `--hf-overrides '{"tokenprune": {...}}'`, and a request's `mm_processor_kwargs`
hf_overrides   the `--hf-overrides` that `tokenprune serve` passes for a strategy and a model
startup        what is refused, or logged, when a server starts
processor      in the API server: a placeholder for each token that will be kept
worker         in the worker: encode, select, position IDs
towers         vision towers as vLLM builds them
metrics        Prometheus counters, and a file of kept indices
endpoint       GET /tokenprune: the server's strategy and settings; refuses images prepared with others

Only this folder imports vLLM. The commands and evals import only `settings`, `architectures`, `hf_overrides`,
`startup.refusals` and `endpoint`, which do not load it; nothing else imports this folder.
"""
