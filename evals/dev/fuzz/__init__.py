"""Random tiny models, prompts, strategies and caches, against unpatched models that mask what pruning drops.

draw        one draw, run patched and compared with masking
families    random tiny models
prompts     random conversations
strategies  random strategies
modes       ways to run a model over a conversation
oracle      the contract that a draw is held to
log         the file of a run
"""
