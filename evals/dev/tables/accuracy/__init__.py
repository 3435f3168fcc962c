"""Tables of what pruning loses: accuracy, and trees on aerial photographs.

measured        what `dev.measure` has stored of its plan; the next nine tables are made from it
headline        the README's short table
strategies      every strategy, on the main set and on other grids
resolutions     the unpruned model on every set and grid
kinds           counting, relations, text and small objects
paired          position IDs and strategies, question by question
references      every strategy against four others, question by question
variants        what changing one setting does
judged          goals of the unpruned model, and published findings
which_strategy  one line per strategy, with what it needs
adaptive        adaptive budgets against fixed ones
tune_splits     whether the bound of `tune` holds on hidden questions
adapted         what training while pruned gains
kv_precision    fewer tokens or fewer bits in the KV cache
needles         coarse to fine in large images
needle_answers  the answers that these tables are made from
aerial          trees kept on aerial photographs
differences     the text of a paired difference in a cell
"""
