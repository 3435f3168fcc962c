"""The recipe of the bundled model: `python -m tokenprune.evals.dev.train --help`.

The bundled model was grown from a simpler one, version 1, whose recipe is in the history only:
`evals/dev/train/version_1` at 51d198db. It trains in less than two hours on one core, and held out the same things.

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
"""
