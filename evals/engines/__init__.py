"""Engines that answer questions instead of the model in this process: vLLM's, here or behind a URL.

engine   what an evaluation needs from an engine
offline  vLLM in this process
server   a running server
runner   asks an engine, and checks how many visual tokens it kept
"""
