"""The vocabulary of the bundled model.

nouns  the things that it knows
words  what signs say
"""
