"""Experiments whose results are stored under evals/results.

adapting            what an adapter gains
adaptive            budgets that adapt to the image, against fixed ones
aerial              BackgroundPruning on aerial photographs
background_scaling  BackgroundPruning's cost on images of many tiles
decode_steps        what a patch adds to a decode step
growth              time and memory of a prefill as images grow
ideals              strategies against their ideals, on three shapes of models
kills               runs that are killed and resumed
kv_precision        fewer tokens, or a lower precision of the KV cache
locked_scorer       scores of many setups on one set, kept in a folder
needles             small things in large images, searched coarse to fine
recorded            scores that are stored as rows, beside those of a model
selection           time of selection alone
serving             time and throughput in vLLM
tune_splits         whether what `tune` promises holds on other questions
videos              time and memory of a prefill with a video
"""
