"""Experiments whose results are stored under evals/results.

adapting            how much accuracy an adapter gains
adaptive            budgets that adapt to the image, against fixed ones
aerial              BackgroundPruning on aerial photographs
background_scaling  BackgroundPruning's cost on images of many tiles
decode_steps        what a patch adds to a decode step
growth              time and memory of a prefill as images grow
ideals              strategies against their ideals, on models of three shapes
kills               runs that are killed and resumed
kv_precision        fewer tokens against a KV cache of lower precision
locked_scorer       scores of many setups on one data set, kept in a folder
narrow              models so narrow that a forward is almost only Python
needles             small things in large images, searched coarse to fine
recorded            scores from stored rows, together with those of a model
selection           the time of selection alone
serving             time and throughput in vLLM
tune_splits         whether the bound of `tune` holds on other questions
videos              time and memory of a prefill with a video
"""
