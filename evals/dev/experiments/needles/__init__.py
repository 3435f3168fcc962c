"""Coarse-to-fine search for small things in large images.

draw   draws needles in a large image
write  writes a set of them, in published formats
ask    answers the questions coarse to fine and in other ways
"""
