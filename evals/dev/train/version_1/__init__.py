"""The recipe of version 1, which the bundled model is grown from: one grid, five things at most, no signs.

assets     cut-outs and backgrounds, and which of them training never sees
scenes     what is drawn
questions  what can be asked about it
batches    what a step gets
stage_one  the tower learns what patches show
train      the language model learns to answer
losses     what it is trained on
"""
