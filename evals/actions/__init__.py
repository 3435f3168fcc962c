"""What pruning does to the actions of robot policies.

observation  what a policy sees at one moment
recordings   folders of observations
lerobot      ... that are LeRobot data sets
policy       asks a policy for actions
compare      pruned and unpruned actions on the same observations
table        what `tokenprune actions` prints
"""
