"""Language models: their layers, masks and attention.

config     what kind of attention the layers have, and which masks they take
code       how the code treats masks, queries and keys, where the config does not say
attention  where to read the queries and keys of a layer
deepstack  visual features added after the first layers
denoising  additional questions to adapters of models that denoise
"""
