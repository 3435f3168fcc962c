"""Parts that tasks are made of.

task           a published set: its files, prompts and metrics
question       a question of any set
kinds          questions answered with a box, and with yes or no
choices        ... with a letter
short_answers  ... with a few words
video          questions about videos
metric         the value of a metric, and its interval
"""
