"""The recipe of the bundled model: `python -m tokenprune.evals.dev.train --help`.

The bundled model is grown from a simpler one, whose recipe is `version_1`; `make train` runs both.

vocabulary  the things and the words that the model knows
sources     downloads
scenes      drawn images, and questions about them
batches     the inputs of a training step
start       what the stages start from
stages      the stages of training, and what is fitted between them
losses      the losses of stage two
check       accuracy during training
run         the model and the log of a run
state       checkpoints
compact     a small checkpoint, to move to another machine
release     from a checkpoint to the bundled model and its sets
version_1   the simpler model
"""
