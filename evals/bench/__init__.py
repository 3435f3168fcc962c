"""Speed and memory: how much pruning saves against the unpruned model, and how close it comes to the ideal.

measuring   rounds of all cases in turn: start reading here
cases       the unpruned model, strategies, and the ideal of each
ideal       what strategies are compared with
ideal_rows  its vision tower, where that takes the patches of all images in one row
schedule    how many visual tokens each layer sees
clock       which phases of a prompt and its answer are timed
stopwatch   moments, and the time that hooks take
memory      the peak of a call
load        what other processes use of the machine
record      the file of a benchmark
figures     medians and ratios with intervals
tables      figures as tables
plot        figures as a plot
prompts     the timed prompts
rendered    drawn pages, tables and screens for them
build       models with random weights
shapes      their configurations
"""
