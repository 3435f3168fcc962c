"""What several strategies share.

importance  VFlowOpt's importance map
cells       VFlowOpt's merging, one token per cell
clusters    BackgroundPruning's clusters of similar neighbours
density     clusters around density peaks, and SparseVLM's merging into them
shares      how frames share a budget
similarity  cosine similarities, computed in blocks
"""
