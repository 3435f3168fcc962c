"""Scenes and questions, and the things that they show.

nouns   the things that the model knows
words   what signs say
assets  cut-outs, backgrounds and fonts, by side of the split
grids   the grids that the model is trained on
draw    scenes
color   the word for a thing's colour
ask     questions with known answers about scenes
shrink  a smaller copy of the sources, for another machine
"""
