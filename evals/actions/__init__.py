"""What pruning does to the actions of robot policies.

observations  recorded observations
lerobot       ... of LeRobot data sets
policy        a policy, asked for actions
compare       pruned and unpruned actions on the same observations
table         what `tokenprune actions` prints
"""
