"""Searches for settings of one strategy.

optimize     VFlowOpt's calibration
objective    what it maximises
space        the settings that it tries
plot         what was tried, as a plot
layers       decoder layers to skip
adatoken     AdaToken's calibration
calibration  the questions of a search, which evaluations leave out
journal      a search that survives a kill
"""
