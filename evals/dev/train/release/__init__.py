"""The products of a training: the bundled model, and the sets that it is measured on.

export       a checkpoint in Hugging Face's layout
plans        which sets are bundled
choose       their scenes, and the questions about them
write        one set, in published formats
sets         all of them
photographs  questions about the bundled photographs
check        whether the sets are what they should be
"""
