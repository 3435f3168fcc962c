"""What pruning saves in vLLM (time to first token, requests per second, KV blocks), and what selection costs.

    python -m tokenprune.evals.dev.experiments.serving.model FOLDER              # random weights, with a processor
    tokenprune serve --model FOLDER --strategy fopru --trust-request-mm-kwargs --port 8001 [vLLM options]
    tokenprune serve --model FOLDER --strategy grid --trust-request-mm-kwargs --port 8002 [vLLM options]
    python -m tokenprune.evals.dev.experiments.serving URL URL --model FOLDER --output FILE

Works with any model of LLaVA-1.5's kind. Each request sets its keep ratio, so that one engine serves all keep
ratios, which are measured alternately.

model  a LLaVA-1.5 with random weights
"""
