"""Tables of what pruning loses.

measured        what `dev.measure` has stored of its plan; the next nine tables are made from it
headline        the README's short table
strategies      every strategy, on the main set and on other grids
resolutions     the unpruned model on every set and grid
kinds           counting, relations, text and small objects
paired          position IDs and strategies, question by question
references      every strategy against four others, question by question
variants        what changing one setting does
judged          whether published findings hold
which_strategy  one line per strategy, with what it needs
videos          strategies on the bundled clips
adapted         what training while pruned gains
differences     the text of a paired difference in a cell
"""
