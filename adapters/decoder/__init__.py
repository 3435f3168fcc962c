"""Language models: their layers, masks and attention.

config     how the layers attend, and which masks they take
masking    what the code does with masks, beyond what the config says
attention  where queries and keys of a layer are read
rotation   how they are rotated
deepstack  visual features that are added after the first layers
denoising  further questions, for adapters of models that denoise
"""
