"""Scenes, and questions about them.

assets  cut-outs, backgrounds and fonts, in training or held out
grids   the grids that the model is trained on
draw    draws scenes
color   the word for a thing's colour
ask     questions with known answers about scenes
shrink  a smaller copy of the sources, for another machine
"""
