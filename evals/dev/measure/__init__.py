"""The accuracy of the bundled model, measured by one command, and what it says about published findings.

plan        what is measured
steps       the plan's parts, split into what is asked at one keep ratio
run         the measurement: start reading here
stored      the committed rows, from which any machine can resume
estimate    how long it takes
goals       what the unpruned model should be able to do
directions  published findings, and whether they hold
"""
