"""The tokens of a prompt after pruning.

packing       which columns of a call are kept, and which slots of a cache hold them
input_masks   attention masks as callers pass them
masks         attention masks after pruning
position_ids  position IDs
"""
