"""Layouts of visual tokens that several families share.

frames    one raster, repeated frame by frame
anyres    an overview, and tiles assembled into one canvas with newline tokens
tiles     tiles whose images are read from the prompt
crops     square crops and a square whole
newlines  newline tokens at the end, or at the end of every row
padded    images of any shape, padded to the same number of patches
grids     images whose tower is unknown
"""
