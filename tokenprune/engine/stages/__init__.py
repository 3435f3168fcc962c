"""Pruning between decoder layers.

plan      where a strategy prunes, and what it keeps there, checked
pruning   decides every stage of a patched model
run       one stage in one forward: the arguments of its layers
forward   the state of all stages in one forward
capture   captures queries and keys of the layers whose attention stages read, and reads it from them
skipping  skips decoder layers
"""
