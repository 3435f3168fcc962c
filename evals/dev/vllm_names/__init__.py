"""Check that a vLLM release has every name, method and parameter that our plug-in uses, without importing either.

    python -m tokenprune.evals.dev.vllm_names --release WHEEL_OR_FOLDER

`make check-vllm` downloads the newest release and runs this on it.

sources  the modules of a release, read without importing them
uses     what the plug-in uses of vLLM
"""
