"""Scorers shared by several tasks.

vqa_accuracy  VQA's soft accuracy
synonyms      synonyms by WordNet
"""
