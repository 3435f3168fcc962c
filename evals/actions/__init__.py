"""What pruning does to the actions of robot policies.

observation   what a policy sees at one moment
observations  recorded ones, from a folder
lerobot       ... that is a LeRobot data set
policy        a policy, asked for actions
compare       pruned and unpruned actions on the same observations
table         what `tokenprune actions` prints
"""
