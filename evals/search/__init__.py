"""Searches for settings of one strategy.

optimize     VFlowOpt's calibration
objective    what it maximises
space        the settings it tries
plot         ... as a plot
layers       finds decoder layers to skip
adatoken     AdaToken's calibration
calibration  the questions of a search, drawn at random
journal      makes a search resumable after a kill
"""
