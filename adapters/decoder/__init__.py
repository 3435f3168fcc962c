"""Language models: their layers, masks and attention.

config     how the layers attend, and which masks they take
masking    what the code does with masks that the config does not tell
attention  where queries and keys of a layer are read
rotation   how they are rotated
deepstack  visual features that are added after the first layers
denoising  what adapters of models that denoise answer besides
"""
