"""Tables of what pruning loses: accuracy, and trees on aerial photographs.

bundled_model  every strategy on the bundled model: the tables that `make results` measures
grounding      what keeps grounding without calibration
adaptive       adaptive budgets against fixed ones
tune_splits    whether the guarantee of `tune` holds on hidden questions
adapted        what training while pruned gains
kv_precision   fewer tokens or fewer bits in the KV cache
needles        coarse to fine in large images
aerial         trees kept on aerial photographs
"""
