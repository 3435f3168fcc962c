"""The recipe of version 1, from which the bundled model is grown: one grid, five things at most, no signs.

assets     cut-outs and backgrounds, and which of them training never sees
scenes     drawn images
questions  questions about them
batches    the inputs of a training step
stage_one  the tower learns what patches show
train      the language model learns to answer
losses     its losses
"""
