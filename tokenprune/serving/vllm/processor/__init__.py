"""In the API server: what a request's prompt gets for an image that will be pruned.

processor    a placeholder for each token that will be kept, and the hash for caching images
item         what travels with an image from the API server to the worker
options      request options that do not fit the vision tower
elsewhere    an image that was encoded elsewhere, and one that does not fit
placeholder  how short an image's placeholder is, and those of a prompt with a limit
markers      text between the visual tokens of an image
patches      an image as seen by strategies that prune before the tower
"""
