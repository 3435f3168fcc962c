"""Language models: their layers, masks and attention.

config     what kind of attention the layers have, and which masks they take
attention  where to read the queries and keys of a layer, and how its code rotates them
deepstack  visual features added after the first layers
denoising  additional questions to adapters of models that denoise
"""
