"""Methods overridden on one model instance, where hooks are not enough.

override       the mechanism
model_forward  the model's own forward
skipping       skips decoder layers
generating     ways to generate that are refused, or that must see the prompt first
"""
