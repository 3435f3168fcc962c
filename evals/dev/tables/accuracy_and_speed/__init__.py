"""Tables of pages that report accuracy and speed of one kind of pruning.

tower     pruning before the vision tower and between its layers
vflowopt  VFlowOpt, its calibration and its ablations
videos    strategies on videos
"""
