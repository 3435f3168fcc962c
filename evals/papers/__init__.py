"""Published tables of accuracy, rerun: `tokenprune paper`.

protocol   what a protocol file states: model, tasks, strategies, budgets, published numbers
readiness  what a run needs and how long it takes, before any weights are loaded
measuring  a run: `evaluate` on every task, into folders from which it resumes
comparing  the table with measured beside published numbers

A protocol is a TOML file in `protocols/`, or a user's own.
"""
