"""Maintainers' code: training, experiments, tables and figures of this repository. Not part of any wheel.

train           the recipe of the bundled model
measure         the accuracy of the bundled model, in one command
experiments     all other measurements
stored          where results are stored
tables          the generated tables of the documents
figures         the figures of the documents
fuzz            random models, strategies and caches, compared with masking
website         the site of the documentation
lmms_agreement  lmms-eval with a pruned model against `tokenprune eval`
gpu             what to run on a GPU, as a table of commands
vllm_names      checks that a release of vLLM has the names that the plug-in uses
"""
