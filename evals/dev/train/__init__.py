"""The recipe of the bundled model: `python -m tokenprune.evals.dev.train --help`.

It is grown from a simpler one, whose recipe is `version_1`; `make train` runs both.

sources    what is downloaded
scenes     what is drawn, and what can be asked about it
batches    what a step gets
start      what the stages start from
stage_one  the tower learns what patches show
stage_two  the language model learns to answer
losses     what stage two is trained on
check      accuracy while it trains
run        model and log of a run
state      checkpoints
compact    a checkpoint that moves to another machine
release    from a checkpoint to the bundled model and its sets
version_1  the simpler model
"""
