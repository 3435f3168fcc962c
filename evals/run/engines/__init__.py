"""Engines that answer questions instead of the model in this process: vLLM's, here or behind a URL.

backend    an engine as the backend of a run: start reading here
engine     what an evaluation needs from an engine
offline    vLLM in this process
server     a running server
runner     asks an engine, and checks how many visual tokens it kept

Of the other modules of a run, only `evaluate` imports this package, and this package does not import that one.
"""
