"""The stages of training.

stage_one  the tower learns what patches show
anchor     between the stages: visual tokens and words become readable for version 1 again
heads      before stage two: linear heads are fitted to what they will read
stage_two  the language model learns to answer
"""
