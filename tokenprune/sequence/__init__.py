"""The tokens of a prompt after pruning. Which IDs and mask a call gets is decided in `tokenprune.engine.call`.

packing         which columns of a call are kept, and which slots of a cache hold them
masks           kinds of decoder layers; attention masks as callers pass them
finished_masks  attention masks after pruning
position_ids    compact position IDs, and how far they shift what follows
"""
