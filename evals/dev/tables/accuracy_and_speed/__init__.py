"""Tables of pages that report accuracy and speed of one kind of pruning.

vflowopt  VFlowOpt, its calibration and its ablations
videos    strategies on videos
"""
