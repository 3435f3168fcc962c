"""The inputs of a training step.

feed     the scenes of each step, drawn ahead
encode   the vision tower's features of scenes, on any grid
patches  stage one: the truth about every patch, and the heads trained on it
pack     stage two: many questions after one image
"""
