"""Whether a vLLM release has every name, method and parameter that our plug-in uses. Imports nothing of either.

    python -m tokenprune.evals.dev.vllm_names --release WHEEL_OR_FOLDER

`make check-vllm` downloads the newest release and does that.

sources  the modules of a release, read without importing them
uses     what the plug-in uses of vLLM
"""
