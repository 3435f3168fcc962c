"""Random tiny models, prompts, strategies and caches, compared with unpatched models that mask what pruning drops.

draw        one draw, run patched and compared with masking
families    random tiny models, made from those of the contract tests
prompts     random conversations
strategies  random strategies
modes       ways to run a model over a conversation
oracle      the contract that every draw must meet
log         the log file of a run
"""
