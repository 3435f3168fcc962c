"""`tokenprune tune`: the cheapest setting within a bound on the loss of accuracy, for a model and its questions.

questions    splits the questions in two halves, and orders the first
space        which settings are tried
sharing      runs the vision tower once for all settings of a batch
scoring      answers on disk, and their scores
first_token  distributions in place of answers
bounds       the loss, and its confidence bounds
costs        what a setting costs, relative to the unpruned model
search       proposals and successive halving, on the first half
confirm      fixed-sequence tests of the best settings, on the second half
settings     the arguments of `tune`, and options of the command
tune         the whole procedure, and the settings file
page, plot   the result as a page and a plot
"""
