"""All accuracy of the bundled model by one command, and what it says about the published directions.

plan        what is measured
steps       the plan's parts, split into what is asked at one keep ratio
run         the measurement: start reading here
stored      the committed rows, from which any machine can resume
estimate    how long it takes
goals       what the unpruned model should be able to do
directions  what is published, and whether it holds
"""
