"""Pruning before the layers of the vision tower, and between them.

batch                   between the layers of a tower that takes a batch of tiles
in_row                  before the layers, and between them, of one that takes the patches of all images in one row
patches                 which visual tokens of an image are encoded at all
row                     one call of such a tower, and what is left of its row
tiles                   what a strategy selects in a tile, whatever form the layers take it in
proportional_attention  attention to merged patches, where the layers take no mask
"""
