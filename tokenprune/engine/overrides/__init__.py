"""Methods overridden on one model instance, where hooks are not enough.

override    the mechanism, and the override of the model's forward
skipping    skips decoder layers
generating  ways to generate that are refused, or that must see the prompt first
"""
