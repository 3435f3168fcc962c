"""Ask every question under every setup, resumably, and turn the answers into results.

evaluate            a run from beginning to end: start reading here
arguments           checks of the models and strategies that a Python caller passes
settings            the arguments of `evaluate`, and options of `tokenprune eval`
setups              what is compared: the unpruned model, strategies, downsampling
downsample          shrinks the image instead of pruning it
questions           the questions of a folder
calibration_images  the images that settings were calibrated on, which evaluations leave out
plan                every question under every setup, in parts
backend             what answers: the model in this process or an engine
engines             vLLM as what answers, in this process or behind a URL (`tokenprune eval --engine`)
runner              the model in this process, batch by batch
batches             questions of similar length, encoded once for all setups
costs               visual tokens and KV cache of an answer
aggregate           from answers to results
progress            messages, and a progress bar or lines in a log
processes           the processes of a run on several devices
"""
