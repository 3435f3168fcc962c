"""How a patched model works. Private: `patch`, `probe`, `Zoom`, `patch_retrieval` and the vLLM plug-in use it.

Start reading at `prefill`.

prefill                 what happens to one prompt, in order
patch                   a change to a whole model that can be undone
pruner                  ... for pruning: all of its hooks
recording               records what the vision tower computes for each image
select                  asks the strategy which visual tokens to keep, and enforces its budget
tower                   pruning before the layers of the vision tower, and between them
stages                  pruning between decoder layers
skipping                skips decoder layers
denoising               block diffusion models and robot policies
loss                    losses with fewer logits than labels
fused_head              trainers that compare labels with hidden states themselves
packed_sequences        position IDs with gaps in FlashAttention, and sequences packed in one row
proportional_attention  proportional attention to merged tokens
cache                   KV caches of pruned prompts
call                    the state of one call
arguments               names of its arguments and outputs
generating              ways to generate that are refused, or that must see the prompt first
overrides               methods overridden on one model instance, where hooks are not enough
compiling               torch.compile

Words, here and in `tokenprune.sequence`:

    row     a sequence of the batch; in `tower`, the patches of all images in one sequence
    column  the index of a token in its row as the caller sees it, dropped tokens included
    slot    the index of a token in a cache, where dropped tokens leave no gap
    place   an index into the tokens that are kept
    new     the columns that this call adds; those in the cache are past
    real    not padding
    hole    filler in a row that keeps fewer tokens than the longest; nothing may attend to it
    shift   by how much position IDs after a pruned prompt are lower than without pruning
"""
