"""The accuracy of the bundled model, measured with one command, and what it says about published findings.

plan        what is measured
steps       the parts of the plan, split by keep ratio
run         the measurement: start reading here
stored      the committed rows, from which any machine can resume
estimate    how long the measurement takes
directions  published findings, and whether they hold
"""
