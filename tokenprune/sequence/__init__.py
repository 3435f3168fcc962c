"""The tokens of a prompt that are left after pruning.

packing       which columns of a call are kept, and which slots of a cache hold them
masks         attention masks
position_ids  position IDs
"""
