"""How a patched model works. Private: `patch`, `probe`, `Zoom`, `patch_retrieval` and the vLLM plug-in use it.

Start reading at `prefill`.

prefill                 what happens to one prompt, in order
pruner                  registers every hook of a patch, and removes them again
recording               what the vision tower reveals about images while it encodes them
select                  asks the strategy which visual tokens to keep, and enforces its budget
tower                   pruning before the layers of the vision tower, and between them
stages                  pruning between decoder layers
skipping                decoder layers that are not executed
denoising               block diffusion models and robot policies
packed_sequences        position IDs with gaps in FlashAttention, and sequences packed in one row
proportional_attention  proportional attention to merged tokens
cache                   KV caches of pruned prompts
call                    the state of one call, and the names of its arguments
overrides               overridden methods of one model instance, for what hooks cannot see
compiling               torch.compile
"""
