"""The vLLM plug-in: pruned images in vLLM, without a change to vLLM.

plugin      the entry point: registers the architectures `TokenPrune...`
settings    what `--hf-overrides '{"tokenprune": {...}}'` says
refusals    what cannot work, refused when the engine starts
processing  in the API server: as many placeholder tokens as will be kept, and the multimodal hash
core        in the worker: encode, select, and give kept tokens their original position IDs
positions   ... by offsets that travel in the embeddings
rope        ... beyond the length that vLLM counts
capture     queries and keys of one layer of vLLM's vision towers
metrics     Prometheus counters, and a file of kept indices
overrides   what `tokenprune serve` writes for a strategy and a model
endpoint    GET /tokenprune: what the server prunes with

models: one file for each family.

Only this folder imports vLLM. Of all else, only the command and the evals import it: `architectures`, `settings`,
`overrides` and `endpoint`, which load no vLLM.
"""
