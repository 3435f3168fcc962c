"""All accuracy of the bundled model by one command, and what it says about the published directions.

plan        what is measured
steps       the plan's parts, step by step
run         the measurement: start reading here
stored      the rows that are committed, from which any machine goes on
estimate    how long it takes
goals       what the unpruned model should be able to do
directions  what is published, and whether it holds
"""
