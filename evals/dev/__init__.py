"""Maintainers' code: training, experiments, tables and figures of this repository. In no wheel.

The folder peers has scripts that compare with published packages.

train        the recipe of the bundled model
clips        the bundled clips
large        the bundled large image
measure      the accuracy of the bundled model, by one command
experiments  what else is measured
tables       the generated tables of the documents
figures      the figures of the documents
fuzz         random models, strategies and caches against masking
vllm_names   whether a release of vLLM has the names that the plug-in uses
"""
