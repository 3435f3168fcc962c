"""Speed and memory: how much pruning saves against the unpruned model, and how close it comes to the ideal.

measuring     rounds that alternate between all cases: start reading here
cases         the unpruned model, strategies, and the ideal of each
ideal         the ideal: an unpatched model with only the kept number of visual tokens
ideal_tiles   ... between the layers of vision towers that take a batch of tiles
ideal_rows    ... in vision towers that take the patches of all images in one row
schedule      how many visual tokens each layer sees
position_ids  position IDs that must be passed
inputs        models with random weights, and prompts
timing        clocks, peak memory, and the load of other processes
record        the file that a benchmark writes
figures       medians and ratios with intervals
tables        these as tables
plot          ... as a plot
"""
