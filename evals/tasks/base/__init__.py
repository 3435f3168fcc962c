"""Building blocks of tasks.

task           a published set: its files, prompts and metrics
published      where a set is published, and how many questions it has
arrange        a download from the Hub as the folder that a task reads
question       a question of any set, and how long its answer may be
box            a question answered with a box
yes_no         ... with yes or no
choices        ... with a letter
short_answers  ... with a few words
video          questions about videos
metric         the value of a metric, and its interval
vqa_accuracy   the score of VQAv2, VizWiz and TextVQA
synonyms       the score of LRS-VQA, which accepts WordNet's synonyms
"""
