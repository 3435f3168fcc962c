"""Layouts of visual tokens that several families share.

frames    one raster, repeated frame by frame
anyres    an overview, and tiles assembled into one canvas with newline tokens
tiles     which tiles belong to one image, read from the prompt
crops     square crops, and the whole image as a square
newlines  newline tokens at the end of an image, or of every row
windows   windows of visual tokens, and images that the model has window by window
padded    images of any shape, padded to the same number of patches
shrunk    smaller versions of images, and the part of the contract that is about them
"""
