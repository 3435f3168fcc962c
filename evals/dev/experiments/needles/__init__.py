"""Coarse-to-fine search for small things in large images.

draw     needles in a large image
write    a set of them, in published formats
ask      the questions, answered coarse to fine and otherwise
answers  the file of their answers
"""
