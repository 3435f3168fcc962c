"""`tokenprune tune`: the cheapest setting whose loss of accuracy is bounded, for a model and its questions.

questions    the two halves, and the order in which the first is asked
space        which settings are tried
sharing      one run of the vision tower for all settings of a batch
scoring      answers on disk, and their scores
first_token  distributions in place of answers
bounds       how much is lost, and how certain that is
costs        what a setting costs, relative to the unpruned model
search       proposals and successive halving, on the first half
confirm      fixed-sequence tests of the best ones, on the second
tune         the whole procedure, and the settings file
page, plot   the result, for people
"""
