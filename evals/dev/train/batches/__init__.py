"""What a training step gets.

feed     the scenes of each step, drawn ahead
encode   the vision tower's features of scenes, on any grid
patches  stage one: the truth about every patch, and what is trained on it
pack     stage two: many questions behind one image
"""
