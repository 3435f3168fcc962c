"""What happens to a patched model. Private: `patch`, `probe`, `Zoom`, `patch_retrieval` and the vLLM plug-in use it.

Start reading at `prefill`.

prefill      what happens to one prompt, in order
pruner       registers every hook of a patch, and takes them all off again
recording    what the vision tower shows of images while they are encoded
select       asks the strategy which visual tokens to keep, and holds it to its budget
tower        pruning before the layers of the vision tower, and between them
stages       pruning between decoder layers
skipping     decoder layers that are not executed
denoising    block diffusion models and robot policies
bias         proportional attention to merged tokens
cache        KV caches of pruned prompts
call         what a call knows while it lasts, and the names of its arguments
overrides    methods of one model instance, for what hooks cannot see
compiling    torch.compile
"""
