"""What several strategies share.

importance  VFlowOpt's importance map
cells       VFlowOpt's merging, one token per cell
clusters    BackgroundPruning's clusters of similar neighbours
density     SparseVLM's clusters around density peaks
shares      how frames share a budget
similarity  cosine similarities, computed in blocks
"""
