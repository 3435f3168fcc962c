"""The products of a training run: the bundled model, and the sets that it is measured on.

export       a checkpoint in Hugging Face's layout
plans        which sets are bundled
choose       their scenes, and the questions about them
write        writes one set, in published formats
sets         writes all sets
photographs  adds questions about the bundled photographs
check        checks the sets
"""
