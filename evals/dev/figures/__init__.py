"""Figures of the documentation.

adapted      the bundled model with its adapter, beside the model without it
gap          position IDs and grounding
large_image  an image far larger than a model's input
typical      the rule that chooses the example of the README's first image
"""
