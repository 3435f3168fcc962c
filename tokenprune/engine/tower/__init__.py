"""Prunes before and between the layers of the vision tower.

Layers take either a batch of tiles or the patches of all images in one row; each case has its own files.

pruning                 the hooks
batch_pruning           ... on a tower that takes a batch: between its layers
row_pruning             ... on a tower that takes a row: before and between its layers
call                    one call of the tower
batch                   ... on a batch, and what remains of it
row                     ... on a row, and what remains of it
patches                 which visual tokens of an image are encoded at all
tiles                   what a strategy selects in a tile
"""
