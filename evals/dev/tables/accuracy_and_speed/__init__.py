"""Tables of pages that report both accuracy and speed.

vflowopt  VFlowOpt, its calibration and its ablations
videos    strategies on videos
"""
