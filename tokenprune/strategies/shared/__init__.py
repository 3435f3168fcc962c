"""Helpers of strategies, shared by several or too large for the strategy's own file.

importance  VFlowOpt's importance map
recycling   merging dropped tokens into a few: VFlowOpt's by cell, SparseVLM's by cluster
clusters    BackgroundPruning's clusters of similar neighbours
density     clusters around density peaks
shares      how frames share a budget
similarity  cosine similarities, computed in blocks
"""
