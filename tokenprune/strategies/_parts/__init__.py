"""What several strategies share.

text_guided  base classes: by the text's attention, inside the language model
skipping     base class: without some of the decoder layers
places       base class: among all places of the frames of a video
schedule     stages whose average is a given keep ratio
importance   VFlowOpt's importance map
cells        VFlowOpt's merging, one token per cell
clusters     BackgroundPruning's clusters of similar neighbours
density      SparseVLM's clusters around density peaks
shares       how a budget is shared among frames
similarity   cosines in blocks
"""
