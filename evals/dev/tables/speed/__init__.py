"""Tables of time and memory.

bench         what `tokenprune bench` stored
tower         pruning before the vision tower and between its layers
serving       requests inside vLLM
"""
