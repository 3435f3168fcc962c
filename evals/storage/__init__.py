"""What evaluations store, so that a killed run resumes and results can be committed.

answers     an answer as one line of JSON
results     the result of a setup on a task, and paired comparisons
results_io  results as lines of JSON
run_folder  a run on disk
provenance  what identifies a run
identity    refuses to resume work that was started differently
files       writes files so that a killed process leaves readable ones
"""
