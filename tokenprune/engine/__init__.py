"""What makes a patched model work. Private: `patch`, `probe`, `Zoom`, `patch_retrieval` and the vLLM plug-in use it.

Start reading at `prefill`.

prefill        what happens to one prompt, in order
patch          installs hooks and overrides on a model and removes them, as a unit; torch.compile
pruner         the patch that prunes: registers all of its hooks
recording      records what the vision tower computes for each image
shrinking      has smaller versions of images encoded
select         asks the strategy which visual tokens to keep, and enforces its budget
call           the state of one call, and which position IDs and mask its language model gets
cache          KV caches of pruned prompts
attention      gaps in position IDs under FlashAttention; attention to merged tokens in proportion to their size
stages         prunes between decoder layers
tower          prunes before and between the layers of the vision tower
denoising      block diffusion models and robot policies
labels         labels of the unpruned prompt, where there are fewer logits
model_methods  overrides of the model's forward and its loss
generating     ways to generate that are refused, or that must see the prompt first
failures       calls whose images cannot be pruned, and their errors

Terms, here and in `tokenprune.sequence`:

    row     a sequence of the batch; in `tower`, the patches of all images in one sequence
    column  a token's index in its row as the caller sees it, counting dropped tokens
    slot    a token's index in a cache, where dropped tokens leave no gap
    place   a token's index among the tokens that are left
    new     describes the columns that this call adds; those in the cache are past
    real    not padding
    hole    filler in a row that keeps fewer tokens than the longest row; nothing may attend to it
    shift   how much lower position IDs after a pruned prompt are than without pruning
"""
