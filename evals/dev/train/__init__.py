"""The recipe of the bundled model: `python -m tokenprune.evals.dev.train --help`.

The bundled model was grown from a simpler one, version 1, which held out the same things. It is in the history only:
its weights at 93570c47~1, from where `make train` takes them, and its recipe, which takes less than two hours on one
core, in `evals/dev/train/version_1` at 51d198db.

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
export      from a checkpoint to the bundled model
"""
