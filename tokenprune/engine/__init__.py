"""How a patched model works. Private: `patch`, `probe`, `Zoom`, `patch_retrieval` and the vLLM plug-in use it.

Start reading at `prefill`.

prefill                 what happens to one prompt, in order
patch                   what is installed on a model as a whole, and removed again
pruner                  ... for pruning: every hook of it
recording               what the vision tower reveals about images while it encodes them
select                  asks the strategy which visual tokens to keep, and enforces its budget
tower                   pruning before the layers of the vision tower, and between them
stages                  pruning between decoder layers
skipping                decoder layers that are not executed
denoising               block diffusion models and robot policies
loss                    losses of logits that are fewer than the labels
fused_head              trainers that compare labels with hidden states themselves
packed_sequences        position IDs with gaps in FlashAttention, and sequences packed in one row
proportional_attention  proportional attention to merged tokens
cache                   KV caches of pruned prompts
call                    the state of one call
arguments               what its arguments and outputs are called
generating              ways to generate that are refused, or must see the prompt first
overrides               overridden methods of one model instance, for what hooks cannot see
compiling               torch.compile

Words, here and in `tokenprune.sequence`:

    row     a sequence of the batch; in `tower`, the patches of all images in one sequence
    column  the index of a token in its row as the caller sees it, dropped tokens included
    slot    the index of a token in a cache, in which dropped ones leave no gap
    place   an index into what is kept or left
    new     of the columns, those that this call brings; what the cache holds is past
    real    not padding
    hole    filler in a row that keeps fewer tokens than the longest; nothing may attend to it
    shift   how much lower the position IDs after a pruned prompt are than without pruning
"""
